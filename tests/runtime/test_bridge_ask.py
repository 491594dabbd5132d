import asyncio

import pytest

from llama_router.control.facade import ControlError
from llama_router.proxy.errors import QueueFullError
from llama_router.runtime.bridge_ask import ask

pytestmark = pytest.mark.asyncio


async def test_the_question_is_answered_on_the_loop_that_it_is_put_to() -> None:
    here = asyncio.get_running_loop()

    async def question() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert await asyncio.to_thread(asyncio.run, ask(here, question())) is here


async def test_a_refusal_keeps_all_that_its_answer_needs() -> None:
    async def question() -> None:
        raise QueueFullError("later", param="model", retry_after_s=2.5)

    with pytest.raises(ControlError) as raised:
        await asyncio.to_thread(asyncio.run, ask(asyncio.get_running_loop(), question()))
    error = raised.value
    assert (error.status, error.code, error.message) == (429, "queue_full", "later")
    assert (error.param, error.retry_after_s) == ("model", 2.5)
