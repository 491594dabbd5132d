import asyncio
import logging

import pytest

from llama_router.proxy.own_tasks import OwnTasks

pytestmark = pytest.mark.asyncio


async def test_a_fault_is_told_and_logged_with_the_tasks_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults: list[int] = []
    tasks = OwnTasks(lambda: faults.append(1))

    async def fail() -> None:
        raise ValueError("a mistake")

    async def work() -> None:
        return

    with caplog.at_level(logging.ERROR):
        await asyncio.wait([tasks.spawn(fail(), "failing"), tasks.spawn(work(), "working")])
        await asyncio.sleep(0)
    assert faults == [1]
    assert [record.getMessage() for record in caplog.records] == ["fault in 'failing'"]


async def test_what_is_left_is_cancelled_which_is_no_fault() -> None:
    faults: list[int] = []
    tasks = OwnTasks(lambda: faults.append(1))

    async def wait() -> None:
        await asyncio.Event().wait()

    started = [tasks.spawn(wait(), str(number)) for number in range(3)]
    tasks.cancel()
    await asyncio.wait(started)
    assert all(task.cancelled() for task in started)
    await asyncio.sleep(0)
    assert faults == []
    tasks.cancel()
