import asyncio
import os
import sys
from collections.abc import Callable

import pytest
import uvloop

from llama_router.engines.pipes import CHUNK_BYTES, DRAIN_LIMIT_BYTES, InputPipe, OutputPump

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=request.param)


def open_pump(deliver: Callable[[bytes], None]) -> tuple[OutputPump, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return OutputPump(asyncio.get_running_loop(), reader, deliver), writer


async def drained(pump: OutputPump) -> None:
    done = asyncio.Event()
    pump.drain(done.set)
    async with asyncio.timeout(60):
        await done.wait()


def test_what_is_in_the_pipe_is_delivered_before_the_drain_ends(runner: asyncio.Runner) -> None:
    async def run() -> None:
        got: list[bytes] = []
        pump, writer = open_pump(got.append)
        os.write(writer, b"a" * 60_000)
        await drained(pump)
        assert b"".join(got) == b"a" * 60_000
        os.write(writer, b"last")
        os.close(writer)
        await drained(pump)
        await drained(pump)
        assert got[-1] == b"last"
        pump.close()
        pump.close()

    with runner:
        runner.run(run())


def test_a_paused_pump_delivers_nothing_until_it_is_resumed(runner: asyncio.Runner) -> None:
    async def run() -> None:
        got: list[bytes] = []
        pump, writer = open_pump(got.append)
        pump.pause()
        pump.pause()
        os.write(writer, b"x")
        waiting = asyncio.get_running_loop().create_task(drained(pump), name="drained")
        for _ in range(10):
            await asyncio.sleep(0)
        assert got == []
        assert not waiting.done()
        pump.resume()
        await waiting
        assert got == [b"x"]
        pump.close()
        os.close(writer)

    with runner:
        runner.run(run())


def test_a_drain_ends_although_somebody_goes_on_writing(runner: asyncio.Runner) -> None:
    async def run() -> None:
        sizes: list[int] = []

        def refill(data: bytes) -> None:
            sizes.append(len(data))
            os.write(writer, data)

        pump, writer = open_pump(refill)
        os.write(writer, b"z" * 50_000)
        await drained(pump)
        assert max(sizes) <= CHUNK_BYTES
        assert DRAIN_LIMIT_BYTES <= sum(sizes) < DRAIN_LIMIT_BYTES + 3 * CHUNK_BYTES
        pump.close()
        os.close(writer)

    with runner:
        runner.run(run())


def test_writing_to_a_full_closed_or_broken_stdin_is_no_error() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    pipe = InputPipe(writer)
    pipe.write(b"exit\n")
    assert os.read(reader, 10) == b"exit\n"
    for _ in range(100):
        pipe.write(b"x" * CHUNK_BYTES)
    os.close(reader)
    pipe.write(b"y")
    pipe.close()
    pipe.close()
    pipe.write(b"z")
