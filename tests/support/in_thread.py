"""A fake hub beside a test that is not asynchronous."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fake_hub import FakeHub


@contextmanager
def running_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve on a thread of its own while entered."""
    is_up = threading.Event()
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with hub:
            over = asyncio.Event()
            ends.append((asyncio.get_running_loop(), over))
            is_up.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake hub")
    thread.start()
    try:
        assert is_up.wait(20)
        yield hub
    finally:
        for loop, over in ends:
            loop.call_soon_threadsafe(over.set)
        thread.join(20)
