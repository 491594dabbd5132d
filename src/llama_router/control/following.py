"""Answers that go on: a log or the events, until the client leaves or the router ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llama_router.control.facade import ControlError, Follower

# Each costs the data plane's thread a little for every event and every line that engines write.
FOLLOWERS_MAX_COUNT = 100
# Under the 30 s to 60 s after which proxies and clients give up on a silent connection.
HEARTBEAT_S = 15.0

# Engines write what they like: it must be shown as the text that it is.
AS_IT_IS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}

Subscribe = Callable[[Callable[[], object]], Follower]


class Streams:
    """All of these answers. For the control plane's loop only."""

    def __init__(self) -> None:
        self.is_over = False
        self._open: dict[Following, None] = {}

    def end(self) -> None:
        """Let every answer end after what there is still to say."""
        self.is_over = True
        for response in self._open:
            response.wake()

    def check_room(self) -> None:
        """Raise ControlError when there are enough."""
        if len(self._open) >= FOLLOWERS_MAX_COUNT:
            message = f"{FOLLOWERS_MAX_COUNT} clients follow logs or events already"
            raise ControlError(503, "unavailable", message)

    def add(self, response: "Following") -> None:
        """Count one more."""
        self._open[response] = None

    def remove(self, response: "Following") -> None:
        """One has ended."""
        self._open.pop(response, None)


class Following(StreamingResponse):
    """One such answer. ``subscribe`` is called at once: nothing is missed from here on.

    ``render`` makes text of the lines that have come; ``heartbeat`` is sent when nothing has been
    for HEARTBEAT_S, unless it is empty. ``first`` are lines before all others. One that is never
    sent has to be closed. Raises ControlError.
    """

    def __init__(
        self,
        streams: Streams,
        subscribe: Subscribe,
        *,
        render: Callable[[Sequence[str]], str],
        media_type: str,
        heartbeat: str = "",
    ) -> None:
        streams.check_room()
        super().__init__(self._parts(), media_type=media_type, headers=AS_IT_IS)
        self.first: Sequence[str] = ()
        self._render = render
        self._heartbeat = heartbeat
        self._streams = streams
        self._waiting = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        self._follower = subscribe(lambda: loop.call_soon_threadsafe(self.wake))
        streams.add(self)

    def wake(self) -> None:
        """Look what has come, or whether it is over."""
        self._waiting.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whatever happens, nothing follows any more afterwards."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()

    def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._follower.close()
        self._streams.remove(self)

    async def _parts(self) -> AsyncIterator[str]:
        if self.first:
            yield self._render(self.first)
            self.first = ()
        sent_s = self._loop.time()
        while not self._streams.is_over:
            if await self._is_quiet(sent_s):
                text = self._heartbeat
            else:
                self._waiting.clear()
                text = self._render(self._follower.take())
            # What has come may be for others only; it must not pass for a sign of life.
            if text:
                yield text
                sent_s = self._loop.time()
        yield self._render(self._follower.take())

    async def _is_quiet(self, since_s: float) -> bool:
        """Wait until something has come, or it is time for a heartbeat; tell whether it is that."""
        try:
            async with asyncio.timeout_at(since_s + HEARTBEAT_S if self._heartbeat else None):
                await self._waiting.wait()
        except TimeoutError:
            return True
        return False
