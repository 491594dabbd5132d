import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from llama_router.engines import parameter_tables
from llama_router.engines.embedded.flags import parse_flags
from llama_router.engines.embedded.table import TABLE
from llama_router.engines.parameter_tables import ParameterTables, embedded_table
from llama_router.engines.parameters import ParameterKind, ParameterValue
from tests.support.loop_guard import every_time, loop_guard

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts"),
]
RECORDED = Path(__file__).parent / "recorded" / "llama-server-b11434-help.txt"
COMMAND = ("llama-server", "--port", "$port")


def program(folder: Path, body: str) -> Path:
    path = folder / "llama-server"
    path.write_text(f"#!/bin/sh\necho asked >> '{folder}/asked'\n{body}\n")
    path.chmod(0o755)
    return path


def tables(found: Path | None) -> ParameterTables:
    return ParameterTables({**os.environ, "LLAMA_ROUTER_SECRET": "s"}, found)


def times_asked(folder: Path) -> int:
    asked = folder / "asked"
    return len(asked.read_text().splitlines()) if asked.exists() else 0


async def test_a_program_is_asked_once_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    found = program(tmp_path, f"cat '{RECORDED}'")
    known = tables(found)
    assert known.known(COMMAND) is None
    table = await known.of(COMMAND)
    assert table is not None
    assert "ctx-size" in table.parameters
    assert await known.of((str(found), "--port", "$port")) is table
    assert known.known(COMMAND) is table
    assert times_asked(tmp_path) == 1
    program(tmp_path, f"# another build\ncat '{RECORDED}'")
    assert await known.of(COMMAND) is not table
    assert times_asked(tmp_path) == 2


async def test_a_bare_name_is_looked_up_where_engines_are(tmp_path: Path) -> None:
    program(tmp_path, f"cat '{RECORDED}'").rename(tmp_path / "llama-server.exe")
    known = ParameterTables({"PATH": f"{tmp_path}:{os.environ['PATH']}"}, None)
    table = await known.of(("llama-server.exe", "--port", "$port"))
    assert table is not None
    assert "ctx-size" in table.parameters


async def test_it_is_not_given_what_is_the_routers(tmp_path: Path) -> None:
    found = program(tmp_path, f"env > '{tmp_path}/env'; cat '{RECORDED}'")
    await tables(found).of(COMMAND)
    assert "SECRET" not in (tmp_path / "env").read_text()


async def test_one_that_does_not_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameter_tables, "HELP_TIMEOUT_S", 0.2)
    found = program(tmp_path, f"cat '{RECORDED}'; sleep 1000 & wait")
    assert await tables(found).of(COMMAND) is None


async def test_one_whose_output_somebody_else_keeps_open_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameter_tables, "HELP_TIMEOUT_S", 0.2)
    leave = "import os,time; os.setsid(); open('pid','w').write(str(os.getpid())); time.sleep(60)"
    detach = f"cd '{tmp_path}'; '{sys.executable}' -c \"{leave}\" &"
    found = program(tmp_path, f"{detach}\nwhile [ ! -s '{tmp_path}/pid' ]; do :; done")
    try:
        async with asyncio.timeout(20):
            assert await tables(found).of(COMMAND) is None
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        for thread in threading.enumerate():
            if thread.name == "help":
                thread.join(20)


async def test_who_said_nothing_is_not_asked_before_each_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tables(program(tmp_path, "exit 1"))
    assert await known.of(COMMAND) is None
    assert await known.of(COMMAND) is None
    assert times_asked(tmp_path) == 1
    monkeypatch.setattr(parameter_tables, "MUTE_S", 0.0)
    assert await known.of(COMMAND) is None
    assert times_asked(tmp_path) == 2


@every_time
async def test_the_loop_is_not_held_by_what_a_program_says(tmp_path: Path) -> None:
    (tmp_path / "help").write_text("-a," * 300_000)
    found = program(tmp_path, f"cat '{tmp_path}/help'")
    with loop_guard() as guard:
        guard.forget()
        asked = asyncio.get_running_loop().create_task(tables(found).of(COMMAND))
        assert await asked is None
        guard.check()


async def test_one_that_never_stops_talking_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameter_tables, "MAX_HELP_BYTES", 10_000)
    found = program(tmp_path, f"cat '{RECORDED}'; yes")
    table = await tables(found).of(COMMAND)
    assert table is not None
    assert 10 < len(table.parameters) < 100


async def test_who_cannot_be_asked_has_no_table(tmp_path: Path) -> None:
    assert await tables(tmp_path / "missing").of(COMMAND) is None
    assert await tables(program(tmp_path, "exit 1")).of(COMMAND) is None
    assert await tables(None).of(("vllm", "serve", "--port", "$port")) is None
    assert await tables(None).of(()) is None
    assert times_asked(tmp_path) == 1


async def test_without_a_program_the_embedded_engine_is_meant() -> None:
    known = tables(None)
    table = await known.of(COMMAND)
    assert table is not None
    assert known.known(COMMAND) is table
    assert table.parameters["kv-unified"].opposites == ("no-kv-unified", "no-kvu")
    assert table.parameters["gpu-layers"].choices == ("auto", "all")
    assert table.find("host") is None
    assert table.find("model") is None


async def test_the_embedded_engine_takes_whatever_its_table_lets_through() -> None:
    table = embedded_table()
    values: dict[ParameterKind, ParameterValue] = {
        ParameterKind.FLAG: True,
        ParameterKind.INTEGER: 1,
        ParameterKind.NUMBER: 0.5,
    }
    given: dict[str, ParameterValue] = {
        name: values.get(each.kind, each.choices[0] if each.choices else "1")
        for name, each in table.parameters.items()
        if name not in ("spec-type", "chat-template-kwargs")
    }
    assert len(given) > 100
    settings = parse_flags(table.arguments(given), TABLE)
    assert settings.values["n_ctx"] == 1
    opposites = {name: False for name, each in table.parameters.items() if each.opposites}
    assert parse_flags(table.arguments(opposites), TABLE).values["warmup"] is False
