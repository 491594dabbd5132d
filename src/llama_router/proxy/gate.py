"""What the data plane needs from the rest of the house, and what it offers in return.

The runtime implements these; of the core the data plane knows the kinds of notices, of the
catalogue nothing.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from llama_router.core.commands import NoticeKind
from llama_router.proxy.errors import RequestError
from llama_router.proxy.upstream import Upstream


class Target(msgspec.Struct, frozen=True):
    """A model that a request names. ``rest`` is what follows the id in a path, with its slash."""

    model: str
    rest: str = ""


class Waiter(Protocol):
    """A request as the runtime sees it."""

    def dispatch(self, upstream: Upstream) -> None:
        """Send the request to its engine now."""

    def reject(self, error: RequestError) -> None:
        """The request gets no engine."""

    def abort(self, error: RequestError) -> None:
        """A dispatched request's time is over."""

    def notify(self, kind: NoticeKind, model: str, fraction: float | None) -> None:
        """Tell the client how its load is going."""


class Gate(Protocol):
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

    def submit(
        self, waiter: Waiter, model: str, *, may_load: bool, wants_notices: bool
    ) -> int | None:
        """Queue or dispatch a request; return its id.

        ``dispatch`` or ``reject`` may be called before this returns.
        """

    def cancel(self, request_id: int) -> None:
        """The client left before the request was dispatched, or while it was being answered."""

    def finished(self, request_id: int) -> None:
        """The answer of a dispatched request is over."""

    def bounced(self, request_id: int) -> None:
        """The engine gave no byte; the request could be sent again."""

    def silent(self, request_id: int) -> None:
        """The engine has said nothing for ``read_timeout_s``: look whether it is still alive.

        The request itself is given up by the data plane, which tells so by ``finished``.
        """


__all__: Sequence[str] = ["Gate", "NoticeKind", "Target", "Waiter"]
