"""How the control plane asks the data plane's thread: by messages to its loop."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from llama_router.control.facade import ControlError
from llama_router.proxy.errors import RequestError

_T = TypeVar("_T")


async def ask(loop: asyncio.AbstractEventLoop, question: Coroutine[object, object, _T]) -> _T:
    """Have a question answered on another thread's loop. Raises ControlError for a refusal."""
    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, loop))
    except RequestError as error:
        raise ControlError(
            error.status,
            error.code,
            error.message,
            param=error.param,
            retry_after_s=error.retry_after_s,
        ) from None
