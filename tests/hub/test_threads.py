import asyncio
import threading

import pytest

from llama_router.hub.threads import in_thread


@pytest.mark.asyncio
async def test_it_gives_what_the_function_gives_or_raises() -> None:
    assert await in_thread(max, 1, 2) == 2

    def fail() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        await in_thread(fail)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [None, OSError("no disk")])
async def test_cancelled_twice_it_still_waits_for_the_thread(error: OSError | None) -> None:
    began, may_end = threading.Event(), threading.Event()
    is_through = False
    cancelled = asyncio.Event()

    def work() -> None:
        nonlocal is_through
        began.set()
        may_end.wait(20)
        is_through = True
        if error is not None:
            raise error

    async with asyncio.timeout(20):
        task = asyncio.create_task(in_thread(work, on_cancel=cancelled.set))
        await asyncio.to_thread(began.wait, 20)
        for _ in range(2):
            cancelled.clear()
            task.cancel()
            await cancelled.wait()
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert is_through
