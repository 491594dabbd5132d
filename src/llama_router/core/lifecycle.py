"""The life of one engine: start, stop, drain, crash, reap. Who comes next is decided elsewhere.

A process is gone only when it was reaped, so every way out of STARTING, READY and DRAINING leads
through STOPPING, where always exactly one of two timers runs: the grace after Terminate, or the
deadline for the reap after Kill.
"""

from typing import Final

from llama_router.core import reasons
from llama_router.core.commands import Abort, Kill, NoticeKind, RejectKind, Spawn, Terminate
from llama_router.core.events import TimerKind
from llama_router.core.ledger import Ledger
from llama_router.core.model import Model, Request
from llama_router.core.states import State, Trigger

REAP_DEADLINE_S: Final = 10.0
"""Even a large process is torn down in less; after this it is stuck in the kernel."""

MAX_ADDRESS_TRIES: Final = 3
"""Losing the race for an address this often in a row is no coincidence."""

MIN_PROGRESS: Final = 0.01
"""Waiting clients are told of whole percents, not of every tensor."""

MIN_RETRY_AFTER_S: Final = 1.0
"""Whoever is refused need not come back any sooner."""

_HELD_S: Final = 1.0  # as long as a bounce holds a queue back, at most

_ROUNDING: Final = 1e-9  # 0.29 - 0.28 < 0.01 in floating point


class Lifecycle:
    """Moves engines through their states and keeps the timers that belong to them."""

    def __init__(self, ledger: Ledger, *, serves_load: bool = True) -> None:
        self._ledger = ledger
        self._serves_load = serves_load

    # On its way up

    def start(self, model: Model) -> None:
        """Spawn the engine of an UNLOADED model."""
        ledger = self._ledger
        ledger.generation += 1
        model.generation = ledger.generation
        model.fraction = None
        model.killed = False
        model.regrouped = False
        model.keep_alive_s = None  # whoever said so spoke of the engine that he used
        model.after_reap = State.UNLOADED
        ledger.move(model, Trigger.SPAWN, "somebody waits for it")
        ledger.out.append(Spawn(model.name, model.generation))
        ledger.set_timer(TimerKind.READY_TIMEOUT, model, model.spec.ready_timeout_s)
        ledger.notify_waiters(model, NoticeKind.LOADING, model)

    def progressed(self, model: Model, fraction: float) -> None:
        """Pass the progress of a load on, if it is any."""
        if fraction != fraction:  # noqa: PLR0124 - NaN is the one that differs from itself
            return
        fraction = min(1.0, max(0.0, fraction))
        if model.fraction is not None and fraction - model.fraction < MIN_PROGRESS - _ROUNDING:
            return
        model.fraction = fraction
        self._ledger.notify_waiters(model, NoticeKind.LOADING, model, fraction)

    def ready(self, model: Model) -> None:
        """The engine answers: serve all who waited for it."""
        ledger = self._ledger
        ledger.cancel_timer(TimerKind.READY_TIMEOUT, model)
        ledger.move(model, Trigger.ANSWERS, "the engine answers")
        model.ready_since = ledger.now
        model.last_error = None
        model.address_tries = 0
        model.crashes.became_ready()
        model.idle_since = ledger.now
        if self._serves_load:
            ledger.serve(model)
        self.watch_idle(model)

    # On its way down

    def stop(self, model: Model, reason: str) -> None:
        """Terminate an engine that is STARTING, READY or DRAINING."""
        ledger = self._ledger
        self._leave(model, Trigger.STOP, reason)
        ledger.out.append(Terminate(model.name, model.generation))
        ledger.set_timer(TimerKind.STOP_GRACE, model, model.spec.stop_grace_s)

    def drain(self, model: Model, reason: str, *, deadline: bool = True) -> None:
        """Stop a READY engine as soon as nothing is in flight, or when its deadline is over.

        Without ``deadline`` the caller sees to it that the drain ends.
        """
        if not model.in_flight:
            self.stop(model, reason)
            return
        ledger = self._ledger
        if model.held:
            ledger.release(model)
        if model.ttl_at is not None:
            ledger.cancel_timer(TimerKind.TTL, model)
            model.ttl_at = None
        ledger.move(model, Trigger.DRAIN, reason)
        if deadline:
            ledger.set_timer(TimerKind.DRAIN_DEADLINE, model, model.spec.drain_deadline_s)

    def watch_idle(self, model: Model) -> None:
        """See to it that a model that nobody uses is unloaded when its time is over.

        A timer that is set stays set while the model is used: it looks again when it fires.
        """
        ttl_s = model.ttl_s
        if ttl_s is None or model.spec.pinned or model.in_flight or model.state is not State.READY:
            return
        at = model.idle_since + ttl_s
        if model.ttl_at is not None and model.ttl_at <= at:
            return
        self._ledger.cancel_timer(TimerKind.TTL, model)
        self._ledger.set_timer_at(TimerKind.TTL, model, at)
        model.ttl_at = at

    def ttl_over(self, model: Model) -> None:
        """The timer of an idle model has fired: stop it, unless it has been used since."""
        model.ttl_at = None
        ttl_s = model.ttl_s
        if ttl_s is None or model.spec.pinned or model.in_flight:
            return
        if model.waiting:  # held back after a bounce: it is about to be used
            model.idle_since = self._ledger.now + _HELD_S
        if model.idle_since + ttl_s <= self._ledger.now and not model.waiting:
            self.stop(model, f"nobody used it for {ttl_s:g} s")
        else:
            self.watch_idle(model)

    def cut(self, model: Model, reason: str) -> None:
        """The drain took too long: abort what is in flight and stop."""
        self.abort(model.in_flight, reason)
        self.stop(model, reason)

    def abort(self, requests: dict[int, Request], reason: str) -> None:
        """Tell the proxy to cut requests; it still reports their ends."""
        for request in requests.values():
            if request.generation and not request.aborted:
                request.aborted = True
                self._ledger.out.append(Abort(request.request_id, reason))

    def kill(self, model: Model, reason: str) -> None:
        """Kill whatever is left of the process, once."""
        if model.state is not State.STOPPING:
            self._leave(model, Trigger.STOP, reason)
        elif model.killed:
            return
        self._kill(model)

    def exited(self, model: Model, reason: str) -> None:
        """The process of a STARTING, READY or DRAINING engine ended by itself."""
        was_up = model.state is not State.STARTING
        self._leave(model, Trigger.EXIT, reason)
        self._gone(model)
        # What it has started may have outlived it, and there is nobody left to ask politely.
        self._kill(model)
        if was_up:
            self._count_crash(model, reason, self._ledger.now - model.ready_since)
            if model.after_reap is State.FAILED:
                self._ledger.refuse_waiters(
                    model, RejectKind.MODEL_FAILED, reasons.given_up(model), self.retry_after(model)
                )
        else:
            self.load_failed(model, RejectKind.MODEL_LOAD_FAILED, reason)

    def ran_out_of_memory(self, model: Model) -> None:
        """Expect more of a model whose engine ran out of memory. To be called before the reap."""
        memory = self._ledger.memory
        if memory.budgets:
            model.memory = memory.raised(model)
            model.ran_out = True
            model.ran_out_at = self._ledger.now

    @staticmethod
    def forget_out_of_memory(model: Model) -> None:
        """Expect no more of a model than before its engine ran out of memory."""
        if model.ran_out:
            model.ran_out = False
            model.memory = model.measured or model.spec.memory

    def load_failed(self, model: Model, kind: RejectKind, reason: str) -> None:
        """Count a failed load and end all who waited for it."""
        self._count_crash(model, reason, 0.0)
        model.address_tries = 0
        text = f"Model '{model.name}' could not be loaded: {reason}"
        self._ledger.refuse_waiters(model, kind, text, self.retry_after(model))

    def spawn_failed(self, model: Model, reason: str) -> None:
        """No process came of the spawn: the load has failed and there is nothing to reap."""
        self._ledger.cancel_timer(TimerKind.READY_TIMEOUT, model)
        self.load_failed(model, RejectKind.MODEL_LOAD_FAILED, reason)
        self._set_back(model, reason)

    def inspection_failed(self, model: Model, problem: str) -> None:
        """An UNLOADED model cannot be started: that is a failed load that has cost nobody."""
        ledger = self._ledger
        ledger.forget_inspection(model.name)
        # A try like any other: a late timer of the one before must not end the pause after this.
        ledger.generation += 1
        model.generation = ledger.generation
        self.load_failed(model, RejectKind.MODEL_LOAD_FAILED, problem)
        self._set_back(model, problem)

    def timed_out(self, model: Model) -> None:
        """The engine did not answer in time."""
        reason = f"no answer within {model.spec.ready_timeout_s:g} s of its start"
        self.stop(model, reason)
        self.load_failed(model, RejectKind.LOAD_TIMEOUT, reason)

    def lost_address(self, model: Model, reason: str, *, exited: bool) -> None:
        """A STARTING engine did not get its address: no crash, but another try with a new one.

        Those who wait keep their claim, so the next start follows the reap.
        """
        model.address_tries += 1
        self._leave(model, Trigger.EXIT if exited else Trigger.STOP, reason)
        if exited:
            self._gone(model)
        self._kill(model)
        if model.address_tries >= MAX_ADDRESS_TRIES:
            self.load_failed(
                model, RejectKind.MODEL_LOAD_FAILED, f"{reason} ({MAX_ADDRESS_TRIES} tries)"
            )

    def reaped(self, model: Model, reason: str) -> None:
        """Nothing is left of the process: on to what STOPPING or STUCK leads to."""
        ledger = self._ledger
        ledger.cancel_timer(TimerKind.STOP_GRACE, model)
        ledger.cancel_timer(TimerKind.REAP_DEADLINE, model)
        self._gone(model)
        if ledger.shutting_down or model.removed:
            ledger.move(model, Trigger.REAPED, reason)
        else:
            self._set_back(model, reason)
        ledger.settle_unloads(model)
        if model.removed:
            ledger.forget(model)

    def overdue(self, model: Model) -> None:
        """Killed and still not reaped: nobody waits for it any more."""
        ledger = self._ledger
        ledger.move(model, Trigger.OVERDUE, f"not gone {REAP_DEADLINE_S:g} s after the kill")
        model.last_error = reason = reasons.stuck(model)
        ledger.refuse_waiters(model, RejectKind.MODEL_STUCK, reason)
        ledger.settle_unloads(model, RejectKind.MODEL_STUCK, reason)

    def clear(self, model: Model, reason: str) -> None:
        """Forget the crashes of ``model``, and end the back-off or ban that came of them."""
        model.crashes.clear()
        model.address_tries = 0
        model.after_reap = State.UNLOADED
        if model.state is State.COOLING:
            self._ledger.cancel_timer(TimerKind.BACKOFF, model)
            self._ledger.move(model, Trigger.CLEAR, reason)
        elif model.state is State.FAILED:
            self._ledger.move(model, Trigger.CLEAR, reason)

    def retry_after(self, model: Model) -> float:
        """Return in how many seconds a client may ask again: after the back-off or ban."""
        return max(MIN_RETRY_AFTER_S, model.crashes.retry_at - self._ledger.now)

    def _leave(self, model: Model, trigger: Trigger, reason: str) -> None:
        ledger = self._ledger
        ledger.cancel_timer(TimerKind.READY_TIMEOUT, model)
        ledger.cancel_timer(TimerKind.DRAIN_DEADLINE, model)
        if model.ttl_at is not None:
            ledger.cancel_timer(TimerKind.TTL, model)
            model.ttl_at = None
        if model.held:
            ledger.release(model)
        ledger.move(model, trigger, reason)

    def _kill(self, model: Model) -> None:
        ledger = self._ledger
        model.killed = True
        ledger.cancel_timer(TimerKind.STOP_GRACE, model)
        ledger.out.append(Kill(model.name, model.generation))
        ledger.set_timer(TimerKind.REAP_DEADLINE, model, REAP_DEADLINE_S)

    @staticmethod
    def _gone(model: Model) -> None:
        # The proxy sees these connections break and still reports each of them.
        model.in_flight.clear()
        model.extras = 0
        model.visitors.clear()

    def _count_crash(self, model: Model, reason: str, ready_for_s: float) -> None:
        gave_up = model.crashes.record(self._ledger.now, ready_for_s)
        model.after_reap = State.FAILED if gave_up else State.COOLING
        model.last_error = reason

    def _set_back(self, model: Model, reason: str) -> None:
        ledger = self._ledger
        if model.after_reap is State.FAILED:
            ledger.move(model, Trigger.GIVE_UP, reason)
            return
        delay_s = max(0.0, model.crashes.retry_at - ledger.now)
        had_process = model.state in (State.STOPPING, State.STUCK)
        if model.after_reap is State.COOLING and (delay_s or not had_process):
            ledger.move(model, Trigger.BACK_OFF, reason)
            ledger.set_timer(TimerKind.BACKOFF, model, delay_s)
            return
        ledger.move(model, Trigger.REAPED, reason)
