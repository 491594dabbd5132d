"""Models on other machines: any server with OpenAI's API, as if its models were here.

A peer takes requests in the core's place (``Target.door``): nothing has to be started, so they go
out at once, over connections of the data plane's own.
"""

import asyncio
import importlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from llama_router.config.schema import Config, PeerEntry
from llama_router.proxy.caller import ANYBODY, Caller
from llama_router.proxy.errors import PeerUnavailableError, RequestError, ShuttingDownError
from llama_router.proxy.gate import Target, Timeouts, Waiter
from llama_router.proxy.limits import REMOTE_POOL_IDLE_S
from llama_router.proxy.rewrite import make_rewrite
from llama_router.proxy.tls import Tls
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.selectors import Standing

_log = logging.getLogger(__name__)
# Between two questions for a peer's models; after a failure, from the first of these to the second.
LIST_INTERVAL_S = 300.0
_FIRST_RETRY_S = 5.0
_LIST_MODULE = "llama_router.runtime.peer_lists"

TellStarted = Callable[[int, str, Caller], object]
"""Told of each request: its id, its model, and whose it is."""
Ask = Callable[[PeerEntry], Any]
"""Asks a peer for the names of its models; awaited. Raises an Exception that says why not."""


class Peer:
    """One of them. Implements Door."""

    def __init__(
        self, name: str, entry: PeerEntry, tls: Tls, request_ids: Iterator[int], tell: TellStarted
    ) -> None:
        self.name = name
        self.entry = entry
        self.problem = ""
        self.models: tuple[str, ...] = ()
        self._known: frozenset[str] = frozenset()
        self._targets: dict[tuple[str, str], Target] = {}
        self._waiters: dict[int, Waiter] = {}
        self._model_of: dict[int, str] = {}
        self._request_ids = request_ids
        self._tell_started = tell
        self._is_closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.upstream = _upstream(name, entry, tls)
        self.learn(entry.models)

    @property
    def in_flight_count(self) -> int:
        """How many requests it is answering."""
        return len(self._waiters)

    def has(self, model: str) -> bool:
        """Tell whether it has a model of that name."""
        return model in self._known

    def learn(self, models: tuple[str, ...]) -> bool:
        """Take the names of its models; return whether they are others than before."""
        if models == self.models:
            return False
        self.models = models
        self._known = frozenset(models)
        self._targets = {}
        return True

    def target(self, model: str, name: str) -> Target:
        """Return where requests for a model of its go that is called ``name`` here."""
        target = self._targets.get((model, name))
        if target is None:
            entry = self.entry
            filters = entry.filters
            values = {**filters.set_params, **filters.set_params_by_id.get(model, {})}
            target = self._targets[model, name] = Target(
                name,
                # Also one that changes nothing: no body leaves that could be read in two ways.
                rewrite=make_rewrite(
                    model=None if model == name else model,
                    strip=filters.strip_params,
                    values=values,
                ),
                timeouts=Timeouts(entry.read_timeout_s, entry.first_byte_timeout_s),
                notify=False,
                door=self,
            )
        return target

    def request_count(self, name: str) -> int:
        """Return how many requests it is answering for a model that is called ``name`` here."""
        return sum(one == name for one in self._model_of.values())

    # --- Door

    def submit(
        self,
        waiter: Waiter,
        model: str,
        *,
        may_load: bool,
        wants_notices: bool,  # noqa: ARG002
        caller: Caller = ANYBODY,
        keep_alive_s: float | None = None,  # noqa: ARG002
        takes_slot: bool = True,
    ) -> int | None:
        """See Door."""
        if self._is_closing:
            waiter.reject(ShuttingDownError("The router is shutting down"))
            return None
        request_id = next(self._request_ids)
        self._waiters[request_id] = waiter
        self._model_of[request_id] = model
        self._idle.clear()
        if may_load and takes_slot:
            # The ends of others are not told.
            self._tell_started(request_id, model, caller)
        waiter.dispatch(self.upstream)
        return request_id

    def cancel(self, request_id: int) -> None:
        """See Door."""
        self._forget(request_id)

    def finished(self, request_id: int) -> None:
        """See Door."""
        self._forget(request_id)

    def bounced(self, request_id: int) -> None:
        """See Door."""
        waiter = self._forget(request_id)
        if waiter is not None:
            waiter.reject(PeerUnavailableError(f"{self.upstream.label} gave no answer"))

    def silent(self, request_id: int) -> None:
        """See Door. Whether it is alive only an answer can tell."""

    def _forget(self, request_id: int) -> Waiter | None:
        waiter = self._waiters.pop(request_id, None)
        self._model_of.pop(request_id, None)
        if not self._waiters:
            self._idle.set()
        return waiter

    # --- its end

    def close(self) -> None:
        """Keep no connection beyond the answers that are under way."""
        self.upstream.close()

    def refuse(self) -> None:
        """Take no request any more."""
        self._is_closing = True

    async def idle(self) -> None:
        """Wait until the last request has ended."""
        await self._idle.wait()

    def abort(self, error: RequestError) -> None:
        """End what is still under way."""
        for waiter in list(self._waiters.values()):
            waiter.abort(error)


class Peers:
    """All peers of the config. Implements PeerNames for ``runtime.names``.

    A model is called as its peer calls it, or ``PEER/MODEL``, which is the only name of one whose
    own name belongs to an earlier peer. ``follow`` a config before the first request.
    """

    def __init__(
        self,
        *,
        tls: Tls | None = None,
        ask: Ask | None = None,
        list_interval_s: float = LIST_INTERVAL_S,
        request_ids: Iterator[int] | None = None,
        tell_started: TellStarted = lambda _request_id, _model, _caller: None,
    ) -> None:
        """``request_ids`` are to be others than those of the core's requests."""
        self._tls = tls or Tls()
        self._ask = ask or self._ask_over_http
        self._list_interval_s = list_interval_s
        self._request_ids = request_ids or itertools.count(1)
        self._tell_started = tell_started
        self._peers: dict[str, Peer] = {}
        # Of an earlier config, with requests under way.
        self._leaving: list[Peer] = []
        self._asking: dict[str, asyncio.Task[None]] = {}
        # Set whenever a peer has told its models, or failed to.
        self.asked = asyncio.Event()

    # --- PeerNames

    def target(self, name: str) -> Target | None:
        """Return where requests of this name go; None when it is no peer's."""
        for peer in self._peers.values():
            if peer.has(name):
                return peer.target(name, name)
        found = self._qualified(name)
        return None if found is None else found[0].target(found[1], name)

    def listed(self) -> Iterator[tuple[str, str]]:
        """Return the names that lists show, each with its peer's."""
        seen: set[str] = set()
        # Taken once, as another config may come while somebody goes through them.
        for peer in tuple(self._peers.values()):
            for model in peer.models:
                yield (f"{peer.name}/{model}" if model in seen else model), peer.name
            seen.update(peer.models)

    def standing(self, model: str) -> Standing | None:
        """Return how busy a model is, by ``Target.model``; None for one that is no peer's."""
        target = self.target(model)
        if target is None or not isinstance(target.door, Peer):
            return None
        peer = target.door
        return Standing(
            is_loaded=not peer.problem,
            is_failing=bool(peer.problem),
            request_count=peer.request_count(model),
        )

    def _qualified(self, name: str) -> tuple[Peer, str] | None:
        for peer in self._peers.values():
            prefix = f"{peer.name}/"
            if name.startswith(prefix) and peer.has(name[len(prefix) :]):
                return peer, name[len(prefix) :]
        return None

    @property
    def in_flight_count(self) -> int:
        """How many requests they are answering."""
        return sum(peer.in_flight_count for peer in (*self._peers.values(), *self._leaving))

    # --- what there is

    def follow(self, config: Config) -> None:
        """Go over to the peers of this config. Those that stay as they are keep all they have."""
        old, self._peers = self._peers, {}
        for name, entry in config.peers.items():
            known = old.get(name)
            if known is not None and known.entry == entry:
                self._peers[name] = old.pop(name)
                continue
            self._peers[name] = peer = Peer(
                name, entry, self._tls, self._request_ids, self._tell_started
            )
            if known is not None and _is_same_server(known.entry, entry):
                # Until it is asked again, which takes its time: clients go on.
                peer.learn(known.models)
        for name, peer in old.items():
            asking = self._asking.pop(name, None)
            if asking is not None:
                asking.cancel()
            peer.close()
            self._leaving.append(peer)
        self._leaving = [peer for peer in self._leaving if peer.in_flight_count]
        for name, peer in self._peers.items():
            if not peer.entry.models and name not in self._asking:
                work = self._keep_asking(peer)
                self._asking[name] = asyncio.create_task(work, name=f"models of peer {name}")

    def prune(self) -> None:
        """Close connections that have been idle for too long to be used again."""
        for peer in self._peers.values():
            peer.upstream.prune()

    async def drain(self, deadline_s: float) -> None:
        """Take no request any more; cut what has not ended in time."""
        peers = (*self._peers.values(), *self._leaving)
        for peer in peers:
            peer.refuse()
        try:
            async with asyncio.timeout(max(0.0, deadline_s)):
                for peer in peers:
                    await peer.idle()
        except TimeoutError:
            for peer in peers:
                peer.abort(ShuttingDownError("The router is shutting down"))

    async def close(self) -> None:
        """Take everything down. Idempotent."""
        tasks = list(self._asking.values())
        self._asking = {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for peer in (*self._peers.values(), *self._leaving):
            peer.close()

    async def _keep_asking(self, peer: Peer) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            if await self._ask_once(peer):
                retry_s = _FIRST_RETRY_S
                pause_s = self._list_interval_s
            else:
                pause_s = min(retry_s, self._list_interval_s)
                retry_s *= 2
            self.asked.set()
            await asyncio.sleep(pause_s)

    async def _ask_once(self, peer: Peer) -> bool:
        try:
            models = await self._ask(peer.entry)
        except Exception as error:  # noqa: BLE001  # whatever a stranger does must not end this
            problem = str(error) or repr(error)
            if problem != peer.problem:
                _log.warning("peer '%s': %s", peer.name, problem)
            peer.problem = problem
            return False
        peer.problem = ""
        if peer.learn(models):
            _log.info("peer '%s' has %d models", peer.name, len(models))
        return True

    async def _ask_over_http(self, entry: PeerEntry) -> tuple[str, ...]:
        lists = await asyncio.to_thread(importlib.import_module, _LIST_MODULE)
        is_tls = urlsplit(entry.url).scheme == "https"
        context = await self._tls.context() if is_tls else None
        names: tuple[str, ...] = await lists.ask(base_url(entry.url), entry.api_key, context)
        return names


def _is_same_server(old: PeerEntry, new: PeerEntry) -> bool:
    """Tell whether what one has told holds for the other, too: another key may see other models."""
    return (old.url, old.api_key, old.models, new.models) == (new.url, new.api_key, (), ())


def base_url(url: str) -> str:
    """Return a peer's URL without what every path of the API begins with."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _upstream(name: str, entry: PeerEntry, tls: Tls) -> Upstream:
    parts = urlsplit(base_url(entry.url))
    is_tls = parts.scheme == "https"
    key = entry.api_key.encode()
    return Upstream(
        host=parts.hostname or "",
        port=parts.port or (443 if is_tls else 80),
        connect_timeout_s=entry.connection_timeout_s,
        extra_head=b"authorization: Bearer %b\r\nx-api-key: %b\r\n" % (key, key) if key else b"",
        tls=tls if is_tls else None,
        path_prefix=parts.path.encode(),
        is_remote=True,
        label=f"peer '{name}'",
        idle_s=REMOTE_POOL_IDLE_S,
    )
