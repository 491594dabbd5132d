"""Work in threads that is never left to itself: it holds files and locks."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(
    function: Callable[..., _T],
    *arguments: object,
    on_cancel: Callable[[], object] = lambda: None,
) -> _T:
    """Run in a thread; when cancelled, and however often, wait until it is through.

    ``on_cancel`` may have it end earlier. What it raises is lost then: being cancelled comes first.
    """
    task = asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is None:
        return task.result()
    # Looked at, so that nobody complains that it was not.
    task.exception()
    raise cancelled
