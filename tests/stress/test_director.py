"""The director with real fake engines."""

import asyncio
import sys
from pathlib import Path

import pytest

from llama_router.stress import behaviour, fake_engine
from llama_router.stress.behaviour import Behaviour
from llama_router.stress.books import Books, Rules
from llama_router.stress.director import Director
from llama_router.stress.wire import Answer, connect
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX"),
]
DEADLINE_S = 60.0


async def start(director: Director, port: int) -> asyncio.subprocess.Process:
    script = Path(fake_engine.__file__).with_name("__main__.py")
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-E", str(script), "--ask", "--push", "--alias", "alpha"),
        *("--control", director.address, "--port", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def until_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while b'"ready"' not in (line := await process.stdout.readline()):
        assert line, "it ended before it was ready"


async def ask(port: int) -> Answer:
    client = await connect(port)
    answer = await client.request("POST", "/completion", {"prompt": "x", "n_predict": 1})
    await client.close()
    return answer


async def test_engines_start_healthy_and_end_with_the_director() -> None:
    async with asyncio.timeout(DEADLINE_S):
        async with Director(1) as director:
            port = free_port()
            process = await start(director, port)
            await until_ready(process)
            assert b'"content":" alpha"' in (await ask(port)).body
            assert director.started_count == 1
        await process.communicate()
    assert process.returncode == 0


async def test_engines_are_in_the_books_as_long_as_they_live() -> None:
    found: list[str] = []
    books = Books(Rules({"alpha": 2}, {}, budget_bytes=1), found.append)
    async with asyncio.timeout(DEADLINE_S), Director(1, books=books) as director:
        for _ in range(2):
            process = await start(director, free_port())
            await until_ready(process)
            process.kill()
            await process.communicate()
    assert found == ["together beyond the memory there is: alpha"] * 2


@pytest.mark.parametrize(("end", "status"), [("kill", -9), ("exit", 3), ("crash", -11)])
async def test_a_planned_end_comes(monkeypatch: pytest.MonkeyPatch, end: str, status: int) -> None:
    plan = Behaviour(kinds=(end,), switches=("--gate-load",), ready_after_s=0.0, end=end)
    monkeypatch.setattr(behaviour, "draw", lambda *_: plan)
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        director.has_faults = True
        process = await start(director, free_port())
        await process.communicate()
        assert process.returncode == status
        assert director.kinds[end] == 1


async def test_calm_calls_a_planned_end_off(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Behaviour(end="kill", end_after_s=0.05)
    monkeypatch.setattr(behaviour, "draw", lambda *_: plan)
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        director.has_faults = True
        port = free_port()
        process = await start(director, port)
        director.calm_down()
        await until_ready(process)
        assert (await ask(port)).status == 200
        process.kill()
        await process.communicate()


async def test_a_port_is_stolen_before_the_engine_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Behaviour(switches=("--gate-bind",))
    monkeypatch.setattr(behaviour, "draw", lambda *_: plan)
    # Until it has been asked.
    monkeypatch.setattr("llama_router.stress.director._THEFT_S", DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        director.has_faults = True
        port = free_port()
        process = await start(director, port)
        _, said = await process.communicate()
        assert process.returncode == 1
        assert b"couldn't bind" in said
        assert b" stolen" in (await ask(port)).body
        assert director.robbed_count == 1
