"""What the data plane needs from the rest of the house, and what it offers in return.

The runtime implements these; of the core the data plane knows the kinds of notices, of the
catalogue nothing.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from llama_router.core.commands import NoticeKind
from llama_router.proxy.caller import ANYBODY, Caller
from llama_router.proxy.errors import RequestError
from llama_router.proxy.rewrite import Rewrite
from llama_router.proxy.upstream import Upstream


class Timeouts(msgspec.Struct, frozen=True):
    """The patience with one model's engine where it is not the router's; None: as the router's."""

    read_s: float | None = None
    first_byte_s: float | None = None


class Target(msgspec.Struct, frozen=True):
    """A model that a request names. ``rest`` is what follows the id in a path, with its slash.

    ``name`` is the selector or alias by which it was found, for the allow-lists of keys; empty:
    found by its id, or by a name of its file. ``rewrite`` is what becomes of the body,
    ``timeouts`` and ``notify`` (whether clients are told of swaps) are as the router's when None.
    ``door`` takes its requests in the Gate's place: the model is not on this machine.
    ``is_open``: its engine may be asked for any path, ``check_endpoint`` would find nothing.
    """

    model: str
    rest: str = ""
    rewrite: Rewrite | None = None
    timeouts: Timeouts | None = None
    notify: bool | None = None
    name: str = ""
    door: "Door | None" = None
    is_open: bool = False


class Waiter(Protocol):
    """A request as the runtime sees it."""

    def dispatch(self, upstream: Upstream) -> None:
        """Send the request to its engine now."""

    def reject(self, error: RequestError) -> None:
        """The request gets no engine."""

    def abort(self, error: RequestError) -> None:
        """A dispatched request's time is over."""

    def notify(
        self, kind: NoticeKind, model: str, fraction: float | None, position: int | None = None
    ) -> None:
        """Tell the client how its load is going, or where in the queue it is (from 1)."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How one inference request went. ``end`` is its end code, "-.-" for a good one.

    The durations run from when it was complete; None for a stage that it did not reach, as for
    tokens that its answer does not count.
    """

    model: str
    key: str
    end: str
    total_s: float
    queue_s: float | None
    first_byte_s: float | None
    tokens_in: int | None
    tokens_out: int | None
    # The beginning of the request's JSON, if prompts are kept at all.
    prompt: str | None = None
    path: str = ""
    # 0: no answer.
    status: int = 0
    # As ``submit`` has returned it; 0: it was refused within.
    request_id: int = 0


class Door(Protocol):
    """Whoever takes requests and sees them through. Every method returns at once."""

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
        """Queue or dispatch a request; return its id.

        ``dispatch`` or ``reject`` may be called before this returns. ``keep_alive_s`` is how long
        the model is to stay behind this request, negative for ever; ``takes_slot`` is false for
        what costs an engine next to nothing.
        """

    def cancel(self, request_id: int) -> None:
        """The client left before the request was dispatched, or while it was being answered."""

    def finished(self, request_id: int) -> None:
        """The answer of a dispatched request is over."""

    def bounced(self, request_id: int) -> None:
        """The engine gave no byte; the request could be sent again."""

    def silent(self, request_id: int) -> None:
        """The engine has said nothing for long: look whether it is still alive.

        If the data plane gives the request up, it tells so by ``finished``.
        """


class Gate(Door, Protocol):
    """The runtime as the data plane sees it. Every method returns at once.

    ``control`` is the control plane: one more upstream.
    """

    control: Upstream

    def resolve(self, name: str) -> Target:
        """Return the model of that name. Raises a RequestError when there is none or several."""

    def resolve_prefix(self, text: str) -> Target | None:
        """Return the model with the longest id that ``text`` begins with, or None."""

    def root_target(self) -> str | None:
        """Return the model that questions without a model are about."""

    def check_endpoint(self, model: str, path: str) -> None:
        """Raise EndpointNotAllowedError when the model's config does not open ``path``."""

    def wants_record(self) -> bool:
        """Tell whether ``remember`` is to be called for the request that ends now.

        True is an answer once: a flood of requests is remembered in part.
        """

    def remember(self, ended: Ended) -> None:
        """Add a request to the history."""


__all__: Sequence[str] = [
    "ANYBODY",
    "Caller",
    "Door",
    "Ended",
    "Gate",
    "NoticeKind",
    "Rewrite",
    "Target",
    "Timeouts",
    "Waiter",
]
