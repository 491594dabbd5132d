"""What a model's ``spawn`` and ``parameters`` say, carried out with real processes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llama_router.catalog.model import CatalogModel, Metadata, ModelSource
from llama_router.catalog.tiny import write_model
from llama_router.config.schema import Config
from llama_router.core.events import (
    EngineExited,
    EngineReady,
    EngineReaped,
    ModelInspected,
    SpawnFailed,
)
from llama_router.engines.logs import LogStore
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.roster import build_roster
from tests.support.core_events import CoreEvents
from tests.support.ports import free_port, port_window
from tests.support.tools import llama_server_path

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="the engines are shell scripts"),
]
HELP = Path(__file__).parents[1] / "engines" / "recorded" / "llama-server-b11434-help.txt"

# Says its arguments, its variable and the paths it is asked for; every answer is 200.
ENGINE = """
import os, socket, sys
print("args", *sys.argv[2:], flush=True)
print("SPOKEN", os.environ.get("SPOKEN"), os.environ.get("LLAMA_ARG_CTX_SIZE"), flush=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection:
        head = connection.recv(4096)
        if head:
            print("asked", head.split()[1].decode(), flush=True)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


class Room:
    """A room over one model; what comes of it is waited for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = CoreEvents()
        self.logs = LogStore()
        self.room: EngineRoom
        (folder / "engine.py").write_text(ENGINE)
        (folder / "a.gguf").write_bytes(b"GGUF")

    def engine(self, *arguments: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(self.folder / "engine.py"), *arguments]

    async def open(
        self,
        found: Path | None = None,
        spawn: dict[str, Any] | None = None,
        metadata: Metadata | None = None,
        **entry: Any,  # noqa: ANN401 - whatever a model's entry in the config may hold
    ) -> EngineRoom:
        model = {"name": "a", "path": str(self.folder / "a.gguf"), **entry}
        if spawn:
            model["spawn"] = spawn
        found_models: list[CatalogModel] = []
        if metadata is not None:
            path = self.folder / "a.gguf"
            model = {"name": "a", "state": "auto", **entry}
            found_models.append(
                CatalogModel(id="a", path=path, source=ModelSource.MODELS_DIR, metadata=metadata)
            )
        self.room = EngineRoom(
            roster=build_roster(Config.model_validate({"models": [model]}), found_models),
            logs=self.logs,
            state_dir=self.folder,
            base_port=port_window(),
            connect_timeout_s=5.0,
            env={**os.environ, "LLAMA_ROUTER_ADMIN_TOKEN": "canary"},
            found_llama_server=found,
            post=self.events.post,
        )
        await self.room.supervisor.start()
        return self.room

    def lines(self) -> list[str]:
        return self.logs.text("a").splitlines()


@pytest_asyncio.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    opened = Room(tmp_path)
    yield opened
    await opened.room.close()


async def test_variables_reach_the_engine_and_those_for_llama_server_do_too(room: Room) -> None:
    env = {"SPOKEN": "$port stays", "LLAMA_ARG_CTX_SIZE": "512"}
    (await room.open(spawn={"command": room.engine("$port"), "env": env})).spawn("a", 1)
    await room.events.first(EngineReady)
    assert "SPOKEN $port stays 512" in room.lines()


async def test_the_routers_own_variables_cannot_be_set(room: Room) -> None:
    env = {"LLAMA_ROUTER_ENGINE": "x"}
    (await room.open(spawn={"command": room.engine("$port"), "env": env})).spawn("a", 1)
    failed = await room.events.first(SpawnFailed)
    assert isinstance(failed, SpawnFailed)
    assert "LLAMA_ROUTER_ENGINE is the router's own" in failed.reason


async def test_an_address_with_a_path_is_asked_below_it(room: Room) -> None:
    spawn = {"command": room.engine("$port"), "address": "http://$host:$port/llm/"}
    opened = await room.open(spawn=spawn)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    assert "asked /llm/health" in room.lines()
    assert opened.upstream(1).path_prefix == b"/llm"


async def test_a_command_without_a_port_goes_with_an_address_that_has_none(room: Room) -> None:
    port = free_port()
    spawn = {"command": room.engine(str(port)), "address": f"http://127.0.0.1:{port}"}
    opened = await room.open(spawn=spawn)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    connection = await opened.upstream(1).connect()
    assert connection.transport.get_extra_info("peername")[1] == port
    connection.release()
    assert opened._ports._in_use == set()


async def test_without_a_health_endpoint_nothing_is_asked(room: Room) -> None:
    spawn = {"command": room.engine("$port"), "health_endpoint": "none"}
    opened = await room.open(spawn=spawn)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    assert not [line for line in room.lines() if line.startswith("asked")]


async def test_a_stop_command_is_given_what_it_says(room: Room) -> None:
    script = 'echo "stop $0 $1 $2"; kill -TERM $0'
    stop = ["/bin/sh", "-c", script.replace("$", "$$"), "$pid", "$model", "p=$port/$pid"]
    spawn = {"command": room.engine("$port"), "stop_command": stop}
    opened = await room.open(spawn=spawn)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    pid, port = opened.pid(1), opened._engines[1].port
    opened.terminate(1)
    await room.events.first(EngineReaped)
    assert f"stop {pid} a p={port}/{pid}" in room.lines()


async def test_parameters_come_at_the_end_or_where_the_command_says(room: Room) -> None:
    parameters = {"ctx-size": 8192, "fast": True, "slow": False, "names": ["a", "b"]}
    spawn = {"command": room.engine("$port", "x", "$parameters", "y")}
    opened = await room.open(spawn=spawn, parameters=parameters)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    assert "args x --ctx-size 8192 --fast --names a,b y" in room.lines()
    spec = opened._launch("a", 2, 1)
    assert spec.argv[-1] == "y"


def llama_server(room: Room) -> Path:
    """A program that has llama-server's name and help, and is otherwise the engine above."""
    path = room.folder / "llama-server"
    path.write_text(
        "#!/bin/sh\n"
        f"""if [ "$1" = --help ]; then cat '{HELP}'; exit; fi\n"""
        f"""for port in "$@"; do :; done\n"""
        f"""while [ "$1" != --port ]; do set -- "$@" "$1"; shift; done; port=$2\n"""
        f"""exec '{sys.executable}' -I -S '{room.folder}/engine.py' "$port" "$@"\n"""
    )
    path.chmod(0o755)
    return path


async def test_llama_servers_own_help_says_what_false_is(room: Room) -> None:
    opened = await room.open(llama_server(room), parameters={"mmap": False, "context-shift": False})
    opened.spawn("a", 1)
    failed = await room.events.first(SpawnFailed)
    assert isinstance(failed, SpawnFailed)
    assert "mmap is not an option of the engine" in failed.reason


async def test_parameters_are_held_against_the_engines_help_before_anybody_goes(
    room: Room,
) -> None:
    opened = await room.open(llama_server(room), parameters={"ctx-size": "much", "port": 1})
    opened.inspect("a", 1)
    answer = await room.events.first(ModelInspected)
    assert isinstance(answer, ModelInspected)
    assert "ctx-size: takes a whole number" in answer.problem
    assert "port is the router's own" in answer.problem


async def test_an_opposite_is_what_the_engine_calls_it(room: Room) -> None:
    opened = await room.open(llama_server(room), parameters={"kv-unified": False, "c": 64})
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    [said] = [line for line in room.lines() if line.startswith("args")]
    assert "--no-kv-unified --ctx-size 64" in said


async def test_a_model_may_have_a_patience_of_its_own_with_connections(room: Room) -> None:
    opened = await room.open(spawn={"command": room.engine("$port")}, connection_timeout_s=1.5)
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    assert opened.upstream(1)._connect_timeout_s == 1.5


async def asked(port: int, request: str, body: str = "") -> str:
    """What llama-server itself answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_a_real_llama_server_is_run_by_parameters_and_for_embeddings(room: Room) -> None:
    write_model(room.folder / "a.gguf", "fox", name="a")
    opened = await room.open(
        llama_server_path(),
        metadata=Metadata(embedding=True),
        parameters={"ctx-size": 256, "kv-unified": False, "parallel": 1, "pooling": "mean"},
    )
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    port = opened._engines[1].port
    assert '"n_ctx":256' in (await asked(port, "GET /props")).replace(" ", "")
    answer = await asked(port, "POST /v1/embeddings", '{"input":"a fox"}')
    assert answer.startswith("HTTP/1.1 200")
    assert "embedding" in answer
    assert "--embeddings was added to the default command" in room.logs.text("a")


async def test_no_engine_is_given_the_port_where_another_always_listens(room: Room) -> None:
    opened = await room.open(spawn={"command": room.engine("$port")})
    base_port = opened._ports._base_port
    opened.roster.fixed_ports = frozenset(range(base_port, base_port + 3))
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    assert opened._engines[1].port > base_port + 2


async def test_a_real_llama_server_is_stopped_by_a_signal_of_its_stop_command(room: Room) -> None:
    write_model(room.folder / "a.gguf", "fox", name="a")
    spawn = {"stop_command": ["/bin/kill", "-TERM", "$pid"]}
    opened = await room.open(llama_server_path(), spawn=spawn, parameters={"ctx-size": 256})
    opened.spawn("a", 1)
    await room.events.first(EngineReady)
    # Until it has answered its main loop may not run yet, and then now and then it hangs.
    question = '{"prompt": "a", "max_tokens": 1}'
    said = await asked(opened._engines[1].port, "POST /v1/completions", question)
    assert said.startswith("HTTP/1.1 200")
    opened.terminate(1)
    exited = await room.events.first(EngineExited)
    assert isinstance(exited, EngineExited)
    assert "SIGKILL" not in exited.reason
    await room.events.first(EngineReaped)
