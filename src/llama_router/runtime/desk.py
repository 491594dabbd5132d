"""Between the data plane and the core: requests come in as events, commands go out as deeds."""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from llama_router.catalog.model import CatalogModel
from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    Inspect,
    Kill,
    Notify,
    Reject,
    RejectKind,
    SetTimer,
    Settled,
    ShutdownComplete,
    Spawn,
    Terminate,
)
from llama_router.core.events import (
    Event,
    LoadRequested,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    Timer,
    TimerFired,
    UnloadRequested,
)
from llama_router.core.machine import Core
from llama_router.core.states import State
from llama_router.proxy.errors import (
    EndpointNotAllowedError,
    InternalError,
    ShuttingDownError,
)
from llama_router.proxy.gate import ANYBODY, Caller, Ended, Target, Waiter
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.feed import RequestStarted
from llama_router.runtime.foresight import Foresight
from llama_router.runtime.history import RecordRate, record_of, request_ended
from llama_router.runtime.names import Names, PeerNames
from llama_router.runtime.pulse import Pulse, Reading
from llama_router.runtime.rejections import error_for
from llama_router.runtime.roster import Roster
from llama_router.runtime.selectors import Standing, standing_of
from llama_router.store.records import RequestRecord

_log = logging.getLogger(__name__)
# One event may ask for thousands: everybody who waits for a model is dispatched when it is ready.
# A dispatch takes some 30 µs, and no callback may hold the loop for more than 2 ms.
MAX_DEEDS_PER_CALLBACK = 50
_TROUBLE = frozenset(one.value for one in (State.COOLING, State.FAILED, State.STUCK))


class Desk:
    """Implements Gate for the data plane. ``open`` it before the first event."""

    core: Core
    roster: Roster
    room: EngineRoom
    names: Names
    peers: PeerNames | None
    control: Upstream

    def __init__(self) -> None:
        self.shut_down = asyncio.Event()
        # Takes the requests that have ended, if there is a history.
        self.record: Callable[[RequestRecord], None] | None = None
        # Whoever comes before it is known what his model needs waits there.
        self.foresight: Foresight | None = None
        self._record_rate = RecordRate(asyncio.get_running_loop().call_later)
        self._pulse = Pulse(self._readings)
        # What happens to the models, for whoever wants to watch.
        self.feed = self._pulse.feed
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        # What the event that was handled last asks for and has not got yet.
        self._commands: deque[Command] = deque()
        self._is_busy = False
        self._is_closed = False
        # From 1; those of requests that go to peers among them.
        self.request_ids = itertools.count(1)
        self._waiters: dict[int, Waiter] = {}
        self._orders: dict[int, asyncio.Future[None]] = {}
        self._timers: dict[Timer, asyncio.Handle] = {}
        # Model and generation that requests were sent to.
        self._places: dict[int, tuple[str, int]] = {}
        self._deeds: dict[type[Command], Callable[[Any], None]] = {
            Spawn: self._do_spawn,
            Inspect: self._do_inspect,
            Terminate: self._do_terminate,
            Kill: self._do_kill,
            Dispatch: self._do_dispatch,
            Reject: self._do_reject,
            Abort: self._do_abort,
            Notify: self._do_notify,
            Settled: self._do_settle,
            SetTimer: self._do_set_timer,
            CancelTimer: self._do_cancel_timer,
            Emit: self._do_emit,
            ShutdownComplete: self._do_shut_down,
        }

    def open(
        self, core: Core, roster: Roster, room: EngineRoom, peers: PeerNames | None = None
    ) -> None:
        """Begin to work with these."""
        self.core, self.roster, self.room, self.peers = core, roster, room, peers
        self.names = Names(
            roster,
            roster.config,
            look=self._look,
            peers=peers,
            profile=roster.config.startup_profile,
        )

    def rename(self) -> None:
        """Let the names of what the roster says by now hold for those who ask from now on."""
        self.names = Names(
            self.roster,
            self.roster.config,
            look=self._look,
            peers=self.peers,
            profile=self.names.profile,
        )

    def _look(self, model: str) -> Standing | None:
        known = self.core.ledger.models.get(model)
        if known is None:
            return None
        held_count = 0 if self.foresight is None else self.foresight.held_count(model)
        return standing_of(known, self._loop.time(), held_count)

    def close(self) -> None:
        """Take no event any more and forget the timers: engines are ended without the core."""
        self._is_closed = True
        if self.foresight is not None:
            self.foresight.close()
        self._pulse.close()
        self._record_rate.close()
        self._events.clear()
        self._commands.clear()
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        for future in self._orders.values():
            if not future.done():
                future.set_exception(ShuttingDownError("The router is shutting down"))

    # --- the core's loop

    def post(self, event: Event) -> None:
        """Hand an event to the core and do what it asks: before this returns, if it is not much.

        An event that comes up while something is still to be done waits its turn.
        """
        if self._is_closed:
            return
        if self._is_busy:
            self._events.append(event)
            return
        self._is_busy = True
        try:
            commands = self.core.handle(event, self._loop.time())
            if len(commands) == 1:
                # By far the most frequent: a request for a model that is ready.
                self._do(commands[0])
            else:
                self._commands.extend(commands)
        except BaseException:
            self._is_busy = False
            raise
        if self._commands or self._events:
            self._work()
        else:
            self._is_busy = False

    def _do(self, command: Command) -> None:
        try:
            self._deeds[type(command)](command)
        except Exception:  # noqa: BLE001  # a mistake of ours must cost one deed only
            _log.exception("fault while doing %s", command)

    def _work(self) -> None:
        """Do a bounded portion of what is to be done, in order, and come back for the rest."""
        events, commands = self._events, self._commands
        left = MAX_DEEDS_PER_CALLBACK
        try:
            while commands or events:
                if not commands:
                    commands.extend(self.core.handle(events.popleft(), self._loop.time()))
                while commands and left:
                    left -= 1
                    self._do(commands.popleft())
                if commands:
                    self._loop.call_soon(self._work)
                    return
        except BaseException:
            self._is_busy = False
            raise
        self._is_busy = False

    @property
    def waiter_count(self) -> int:
        """How many requests wait or are being answered."""
        return len(self._waiters)

    # --- Gate

    def resolve(self, name: str) -> Target:
        """See Gate."""
        return self.names.resolve(name)

    def find(self, name: str) -> CatalogModel:
        """Return our own model that a name leads to, be it valid or not. Raises a RequestError."""
        return self.names.find(name)

    def resolve_prefix(self, text: str) -> Target | None:
        """See Gate."""
        return self.names.resolve_prefix(text)

    def root_target(self) -> str | None:
        """See Gate."""
        return self.core.root_target()

    def check_endpoint(self, model: str, path: str) -> None:
        """See Gate."""
        known = self.roster.find(model)
        if known is None or (allowed := known.spawn.proxy_endpoints) is None:
            return
        # An engine may take ".." for a way up, in either spelling.
        climbs = ".." in unquote(path).replace("\\", "/").split("/")
        if climbs or not path.startswith(allowed):
            raise EndpointNotAllowedError(
                f"the config of model '{model}' does not open {path}; see proxy_endpoints"
            )

    def submit(
        self,
        waiter: Waiter,
        model: str,
        *,
        may_load: bool,
        wants_notices: bool,
        caller: Caller = ANYBODY,
        keep_alive_s: float | None = None,
        takes_slot: bool = True,
    ) -> int | None:
        """See Gate."""
        request_id = next(self.request_ids)
        self._waiters[request_id] = waiter
        if caller is ANYBODY and keep_alive_s is None and takes_slot:
            # The same, in half the time.
            event = RequestArrived(request_id, model, may_load, wants_notices)
        else:
            event = RequestArrived(
                request_id,
                model,
                may_load,
                wants_notices,
                caller.key,
                caller.priority,
                caller.is_batch,
                keep_alive_s,
                takes_slot,
            )
        self._arrive(event)
        if request_id not in self._waiters:
            return None
        if self.feed.follows_requests and may_load and takes_slot:
            # The others' ends are not told. Nor has one an id that was refused at once.
            self.tell_started(request_id, model, caller)
        return request_id

    def tell_started(self, request_id: int, model: str, caller: Caller) -> None:
        """Let those who watch know of a request, be it for one of our models or a peer's."""
        if self.feed.follows_requests:
            self.feed.publish(RequestStarted(time.time(), model, request_id, caller.key))

    def cancel(self, request_id: int) -> None:
        """See Gate."""
        if self._waiters.pop(request_id, None) is not None:
            self._places.pop(request_id, None)
            self._leave(request_id)

    def _arrive(self, event: RequestArrived | LoadRequested) -> None:
        """Post what may start a model, when it is known what that needs."""
        if self.foresight is None or not self.foresight.holds(event):
            self.post(event)

    def _leave(self, request_id: int) -> None:
        if self.foresight is None or not self.foresight.drops(request_id):
            self.post(RequestCancelled(request_id))

    def finished(self, request_id: int) -> None:
        """See Gate."""
        if self._waiters.pop(request_id, None) is not None:
            self._places.pop(request_id, None)
            self.post(RequestFinished(request_id))

    def bounced(self, request_id: int) -> None:
        """See Gate."""
        # It may be alive and refuse connections, of which no exit ever tells.
        self.silent(request_id)
        self.post(RequestBounced(request_id))

    def silent(self, request_id: int) -> None:
        """See Gate."""
        place = self._places.get(request_id)
        if place is not None:
            self.room.doubt(*place)

    def wants_record(self) -> bool:
        """See Gate."""
        if self.feed.follows_requests:
            return True
        return self.record is not None and self._record_rate.admits()

    def remember(self, ended: Ended) -> None:
        """See Gate."""
        try:
            if self.feed.follows_requests:
                self.feed.publish(request_ended(ended, time.time()))
                if not self._record_rate.admits():
                    return
            if self.record is not None:
                self.record(record_of(ended, time.time()))
        except Exception:  # noqa: BLE001  # a history that fails must not cost a request
            _log.exception("fault while a request was put into the history")

    @property
    def unrecorded_count(self) -> int:
        """How many requests were left out of the history because there were too many at a time."""
        return self._record_rate.left_out_count

    def _readings(self) -> dict[str, Reading]:
        ledger = self.core.ledger
        return {
            name: Reading(
                len(model.waiting),
                len(model.in_flight) + len(model.visitors),
                model.fraction if model.state is State.STARTING else None,
            )
            for name, model in {**ledger.running, **ledger.waiting}.items()
        }

    # --- orders of operators

    async def load(self, model: str) -> None:
        """Load a model and wait until it is ready. Raises a kind of RequestError."""
        await self._order(LoadRequested, model)

    async def unload(self, model: str) -> None:
        """Stop a model's engine and wait until it is gone. Raises a kind of RequestError."""
        await self._order(UnloadRequested, model)

    async def _order(self, kind: type[LoadRequested | UnloadRequested], model: str) -> None:
        request_id = next(self.request_ids)
        future = self._loop.create_future()
        self._orders[request_id] = future
        event = kind(request_id, model)
        if isinstance(event, LoadRequested):
            self._arrive(event)
        else:
            self.post(event)
        try:
            await future
        except asyncio.CancelledError:
            self._leave(request_id)
            raise
        finally:
            self._orders.pop(request_id, None)

    # --- deeds

    def _do_spawn(self, command: Spawn) -> None:
        self.room.spawn(command.model, command.generation)

    def _do_inspect(self, command: Inspect) -> None:
        self.room.inspect(command.model, command.inspection)

    def _do_terminate(self, command: Terminate) -> None:
        self.room.terminate(command.generation)

    def _do_kill(self, command: Kill) -> None:
        self.room.kill(command.generation)

    def _do_dispatch(self, command: Dispatch) -> None:
        waiter = self._waiters.get(command.request_id)
        if waiter is None:
            return
        try:
            upstream = self.room.upstream(command.generation)
        except KeyError:
            # It has ended since the core said so; the core hears of that before this.
            self.post(RequestBounced(command.request_id))
            return
        self._places[command.request_id] = (command.model, command.generation)
        try:
            waiter.dispatch(upstream)
        except Exception:  # noqa: BLE001  # a mistake of ours must cost one request only
            _log.exception("fault while sending a request to %s", command.model)
            waiter.abort(InternalError("the router made a mistake; its log says more"))

    def _do_reject(self, command: Reject) -> None:
        waiter = self._waiters.pop(command.request_id, None)
        self._places.pop(command.request_id, None)
        if waiter is not None:
            waiter.reject(error_for(command.kind, command.reason, command.retry_after_s))

    def _do_abort(self, command: Abort) -> None:
        waiter = self._waiters.get(command.request_id)
        if waiter is None:
            return
        is_ending = self.core.ledger.shutting_down
        kind = RejectKind.SHUTTING_DOWN if is_ending else RejectKind.MODEL_UNLOADED
        waiter.abort(error_for(kind, command.reason))

    def _do_notify(self, command: Notify) -> None:
        waiter = self._waiters.get(command.request_id)
        if waiter is not None:
            waiter.notify(command.kind, command.model, command.fraction, command.position)

    def _do_settle(self, command: Settled) -> None:
        future = self._orders.get(command.request_id)
        if future is None or future.done():
            return
        if command.error is None:
            future.set_result(None)
        else:
            future.set_exception(error_for(command.error, command.reason))

    def _do_set_timer(self, command: SetTimer) -> None:
        self._do_cancel_timer(command)
        self._timers[command.timer] = self._loop.call_at(command.at, self._fire, command.timer)

    def _do_cancel_timer(self, command: SetTimer | CancelTimer) -> None:
        handle = self._timers.pop(command.timer, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, timer: Timer) -> None:
        if self._commands:
            # One of them may cancel the timer or set it anew.
            self._timers[timer] = self._loop.call_soon(self._fire, timer)
            return
        del self._timers[timer]
        self.post(TimerFired(timer))

    def _do_emit(self, command: Emit) -> None:
        level = logging.WARNING if command.new in _TROUBLE else logging.INFO
        _log.log(level, "%s: %s -> %s (%s)", *msgspec.structs.astuple(command))
        self.feed.state_changed(command.model, command.old, command.new, command.reason)

    def _do_shut_down(self, command: ShutdownComplete) -> None:  # noqa: ARG002
        self.shut_down.set()
