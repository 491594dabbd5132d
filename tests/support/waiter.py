"""A request that waits at the desk, or at a peer, as a test sees it."""

from llama_router.proxy.errors import RequestError
from llama_router.proxy.gate import NoticeKind
from llama_router.proxy.upstream import Upstream


class Waiter:
    """``log``: where it was sent, and what it was told. A broken one fails when it is sent."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.is_broken = False

    def dispatch(self, upstream: Upstream) -> None:
        if self.is_broken:
            raise RuntimeError("a mistake")
        self.log.append(upstream)

    def reject(self, error: RequestError) -> None:
        self.log.append(error.code)

    def abort(self, error: RequestError) -> None:
        self.log.append(f"abort {error.code}")

    def notify(
        self, kind: NoticeKind, model: str, fraction: float | None, position: int | None = None
    ) -> None:
        self.log.append((kind, model, fraction if position is None else position))
