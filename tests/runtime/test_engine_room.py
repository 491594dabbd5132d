import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from llama_router.config.schema import Config
from llama_router.core.events import (
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    ModelInspected,
    SpawnFailed,
)
from llama_router.engines import ports
from llama_router.engines.logs import LogStore
from llama_router.runtime import engine_room
from llama_router.runtime.engine_room import ENGINE_HOST, EngineRoom
from llama_router.runtime.roster import build_roster
from tests.support.core_events import CoreEvents
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import process_of

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX"),
]


class Rooms:
    """Makes a room and keeps the events that come of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = CoreEvents()
        self.logs = LogStore()
        self.room: EngineRoom

    async def open(
        self, command: list[str], base_port: int = 0, path: str | None = None
    ) -> EngineRoom:
        """Open it over one model, with a file of its own unless ``path`` says another, or none."""
        if path is None:
            (self.folder / "a.gguf").touch()
            path = str(self.folder / "a.gguf")
        entry = {"name": "a", "path": path}
        config = Config.model_validate({"default_spawn": {"command": command}, "models": [entry]})
        self.room = EngineRoom(
            roster=build_roster(config, []),
            logs=self.logs,
            state_dir=self.folder,
            base_port=base_port or port_window(),
            connect_timeout_s=5.0,
            env=dict(os.environ),
            found_llama_server=None,
            post=self.events.post,
        )
        await self.room.supervisor.start()
        return self.room


async def address_of(room: EngineRoom, generation: int) -> object:
    """Where the connections to an engine lead."""
    connection = await room.upstream(generation).connect()
    address: object = connection.transport.get_extra_info("peername")
    connection.release()
    return address


@pytest_asyncio.fixture
async def rooms(tmp_path: Path) -> AsyncIterator[Rooms]:
    rooms = Rooms(tmp_path)
    yield rooms
    await rooms.room.close()


@pytest_asyncio.fixture
async def fakes() -> AsyncIterator[FakeEngines]:
    async with FakeEngines() as engines:
        yield engines


async def test_an_engine_is_spawned_ready_and_reaped_and_its_port_goes_round(
    rooms: Rooms, fakes: FakeEngines
) -> None:
    base_port = port_window()
    room = await rooms.open(fakes.command(), base_port)
    room.spawn("a", 1)
    await rooms.events.first(EngineSpawned, 1)
    await rooms.events.first(EngineReady, 1)
    assert await address_of(room, 1) == (ENGINE_HOST, base_port)
    room.supervisor.kill(1)
    await rooms.events.first(EngineReaped, 1)
    with pytest.raises(KeyError):
        room.upstream(1)
    room.spawn("a", 2)
    await rooms.events.first(EngineReady, 2)
    # A late connection to the first engine does not reach the second.
    assert await address_of(room, 2) == (ENGINE_HOST, base_port + 1)


@pytest.mark.parametrize(
    ("command", "path", "reason"),
    [
        (["engine", "$port", "$path"], "", "has no file"),
        (["engine", "$port"], "/nowhere/a.gguf", "/nowhere/a.gguf is gone"),
        (["/nowhere/engine", "$port"], "", "No such file or directory"),
    ],
)
async def test_a_start_that_cannot_be_is_reported_with_its_reason_and_logged(
    rooms: Rooms, command: list[str], path: str, reason: str
) -> None:
    room = await rooms.open(command, path=path)
    room.spawn("a", 1)
    # Not while the core still carries out the command that led to it.
    assert rooms.events.all == []
    failed = await rooms.events.first(SpawnFailed, 1)
    assert reason in getattr(failed, "reason", "")
    assert reason in rooms.logs.text("a")


async def test_a_folder_will_do_as_a_models_path(rooms: Rooms, fakes: FakeEngines) -> None:
    room = await rooms.open(fakes.command(), path=str(rooms.folder))
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)


async def test_no_free_port_is_a_reason_too(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MAX_TRIES", 1)
    with socket.socket() as taken:
        taken.bind((ENGINE_HOST, 0))
        taken.listen()
        room = await rooms.open(["engine", "$port"], taken.getsockname()[1])
        room.spawn("a", 1)
        failed = await rooms.events.first(SpawnFailed, 1)
    assert "base_port" in getattr(failed, "reason", "")


async def test_without_reports_of_its_own_a_second_load_is_estimated_and_never_done(
    rooms: Rooms, fakes: FakeEngines
) -> None:
    room = await rooms.open(fakes.command("--gate-load"))
    room.spawn("a", 1)
    await (await fakes.started()).ready()
    await rooms.events.first(EngineReady, 1)
    assert not [event for event in rooms.events.all if isinstance(event, EngineProgress)]
    room.supervisor.kill(1)
    await rooms.events.first(EngineReaped, 1)
    room.spawn("a", 2)
    second = await fakes.started()
    progress = await rooms.events.first(EngineProgress, 2)
    assert 0 < getattr(progress, "fraction", 0) <= 0.99
    await second.ready()
    await rooms.events.first(EngineReady, 2)


@pytest.mark.parametrize("stop", ["terminate", "kill"])
async def test_a_stop_while_the_file_is_looked_at_ends_the_spawn(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(engine_room, "_exists", lambda _path: hanging.wait(20))
    room = await rooms.open(["/nowhere/engine", "$port"])
    room.spawn("a", 1)
    await asyncio.sleep(0)
    getattr(room, stop)(1)
    failed = await rooms.events.first(SpawnFailed, 1)
    assert getattr(failed, "reason", "") == "stopped before it was started"
    hanging.set()
    # Its successor is started as if nothing had been, and comes after whatever the first did.
    room.spawn("a", 2)
    await rooms.events.first(SpawnFailed, 2)
    assert len(rooms.events.all) == 2


def doubt_of(room: EngineRoom, generation: int) -> asyncio.Task[None] | None:
    return room._engines[generation].doubt


async def test_an_engine_that_hangs_is_reported_as_ended_and_one_that_lives_is_not(
    rooms: Rooms, fakes: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "_DOUBT_PAUSE_S", 0.0)
    monkeypatch.setattr("llama_router.engines.readiness.PROBE_TIMEOUT_S", 0.2)
    room = await rooms.open(fakes.command())
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)
    room.doubt("a", 1)
    looking = doubt_of(room, 1)
    assert looking is not None
    room.doubt("a", 1)
    assert doubt_of(room, 1) is looking
    await looking
    assert doubt_of(room, 1) is None
    assert not [event for event in rooms.events.all if isinstance(event, EngineExited)]
    os.kill((await fakes.started()).pid, signal.SIGSTOP)
    room.doubt("a", 1)
    ended = await rooms.events.first(EngineExited, 1)
    assert getattr(ended, "reason", "") == "was silent and does not answer its health check"
    room.kill(1)
    await rooms.events.first(EngineReaped, 1)


async def test_a_file_whose_disk_does_not_answer_is_not_asked_for(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_arguments: object) -> bool:
        raise AssertionError("who asks may wait for ever")

    monkeypatch.setattr(engine_room, "_exists", ask)
    monkeypatch.setattr(engine_room, "problem_of", ask)
    room = await rooms.open(["/bin/sh", "$port"])
    room.roster.silent_folders = lambda: (rooms.folder,)
    reason = f"the folder of {rooms.folder / 'a.gguf'} does not answer"
    room.spawn("a", 1)
    failed = await rooms.events.first(SpawnFailed, 1)
    assert getattr(failed, "reason", "") == reason
    room.inspect("a", 1)
    inspected = await rooms.events.first(ModelInspected)
    assert getattr(inspected, "problem", "") == reason


@pytest.mark.parametrize(
    ("command", "path", "problem"),
    [
        (["/bin/sh", "$port"], None, ""),
        (["/nowhere/engine", "$port"], None, "/nowhere/engine does not exist"),
        (["/bin/sh", "$port"], "/nowhere/a.gguf", "/nowhere/a.gguf is gone"),
        (["/bin/sh", "$path", "$port"], "", "has no file"),
    ],
)
async def test_an_inspection_is_answered_later_with_what_is_wrong(
    rooms: Rooms, command: list[str], path: str | None, problem: str
) -> None:
    room = await rooms.open(command, path=path)
    room.inspect("a", 7)
    assert rooms.events.all == []
    answer = await rooms.events.first(ModelInspected, 0)
    assert isinstance(answer, ModelInspected)
    assert (answer.model, answer.inspection) == ("a", 7)
    assert problem in answer.problem
    assert bool(answer.problem) == bool(problem)
    assert problem in rooms.logs.text("a")


async def test_a_spawn_right_behind_its_inspection_looks_at_no_file_again(
    rooms: Rooms, fakes: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def exists(path: Path) -> bool:
        looks.append(path)
        return True

    monkeypatch.setattr(engine_room, "_exists", exists)
    room = await rooms.open(fakes.command())
    room.inspect("a", 1)
    await rooms.events.first(ModelInspected, 0)
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)
    assert looks == []
    room.supervisor.kill(1)
    await rooms.events.first(EngineReaped, 1)
    # It was for one spawn.
    room.spawn("a", 2)
    await rooms.events.first(EngineReady, 2)
    assert looks == [rooms.folder / "a.gguf"]


class Watcher:
    """Keeps what an engine room tells it."""

    def __init__(self, room: EngineRoom, env: Mapping[str, str]) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.pids: list[int] = []
        self._room = room
        self._env = env

    def ready(self, model: str, generation: int, load_s: float) -> None:
        assert load_s > 0
        self.told.append(("ready", model, generation))
        self.pids = self._room.pids()

    def gone(self, model: str, generation: int) -> None:
        self.told.append(("gone", model, generation))

    def environment_of(self, model: str) -> Mapping[str, str]:
        assert model == "a"
        return self._env


async def test_a_watcher_is_told_and_says_what_is_in_the_environment(
    rooms: Rooms, fakes: FakeEngines
) -> None:
    room = await rooms.open(fakes.command())
    room.watcher = watcher = Watcher(room, {"FROM_THE_WATCHER": "yes"})
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)
    engine = await fakes.started()
    assert watcher.pids == [room.pid(1)] == [engine.pid]
    assert process_of(engine.pid).environ()["FROM_THE_WATCHER"] == "yes"
    room.kill(1)
    await rooms.events.first(EngineReaped, 1)
    assert watcher.told == [("ready", "a", 1), ("gone", "a", 1)]
    assert room.pids() == []
    assert room.pid(1) is None


async def test_of_a_model_that_is_gone_nothing_is_kept_once_its_engine_is_gone(
    rooms: Rooms, fakes: FakeEngines
) -> None:
    room = await rooms.open(fakes.command())
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)
    rooms.logs.append("a", "said")
    room.roster.follow(build_roster(Config(), []))
    room.forget("a")
    assert "said" in rooms.logs.text("a")
    room.kill(1)
    await rooms.events.first(EngineReaped, 1)
    assert rooms.logs.text("a") == ""
    assert "[a] said" in rooms.logs.text(None)
    rooms.logs.append("a", "left over")
    room.forget("a")
    assert rooms.logs.text("a") == ""


async def test_a_model_that_is_back_before_its_engine_is_gone_keeps_its_log(
    rooms: Rooms, fakes: FakeEngines
) -> None:
    room = await rooms.open(fakes.command())
    before = build_roster(room.roster.config, [])
    room.spawn("a", 1)
    await rooms.events.first(EngineReady, 1)
    rooms.logs.append("a", "said")
    room.roster.follow(build_roster(Config(), []), leaving={"a": before["a"]})
    room.forget("a")
    room.roster.follow(before)
    room.kill(1)
    await rooms.events.first(EngineReaped, 1)
    assert "said" in rooms.logs.text("a")


async def test_of_a_model_that_goes_while_it_is_looked_at_nothing_is_kept(rooms: Rooms) -> None:
    room = await rooms.open(["/bin/sh", "$port"], path="/nowhere/a.gguf")
    room.spawn("a", 1)
    room.inspect("a", 7)
    before = {"a": room.roster["a"]}
    room.roster.follow(build_roster(Config(), []), leaving=before)
    room.forget("a")
    await rooms.events.first(SpawnFailed, 1)
    await rooms.events.first(ModelInspected, 0)
    assert rooms.logs.text("a") == ""
    assert "[a] the model's file /nowhere/a.gguf is gone" in rooms.logs.text(None)
