import asyncio
import gc
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from llama_router.config.schema import Config
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.proxy.server import BindError
from llama_router.runtime.app import Router, StartError, UnknownStartupModelError
from llama_router.store import STORE_FILE_NAME
from llama_router.store.store import Store
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import FakeEngines
from tests.support.loop_guard import CPU_LIMIT_S, slowness
from tests.support.ports import HOST, port_window
from tests.support.raw_client import RawClient

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX"),
]


@pytest.fixture(autouse=True)
def _process(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Undo what a router does to its process, and look that it removes its own files."""
    # pytest's own folder must not be made in the one that goes with the test.
    tmp_path_factory.getbasetemp()
    interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    with tempfile.TemporaryDirectory(prefix="r-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).glob("llama-router-*")) == []
    sys.setswitchinterval(interval_s)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest_asyncio.fixture
async def fakes() -> AsyncIterator[FakeEngines]:
    async with FakeEngines() as engines:
        yield engines


def make_router(folder: Path, command: list[str], **settings: Any) -> Router:  # noqa: ANN401
    port = port_window()
    file = folder / "alpha.gguf"
    file.touch()
    state_dir = folder / "state"
    state_dir.mkdir(exist_ok=True)
    router = {"port": port, "base_port": port + 1, **settings.pop("router", {})}
    config = Config.model_validate(
        {
            "router": router,
            "default_spawn": {"command": command},
            "models": [{"name": "alpha", "path": str(file)}],
            **settings,
        }
    )
    env = {"HF_HOME": str(folder / "hf"), "LLAMA_CACHE": str(folder / "cache"), "PATH": "/bin"}
    return Router(config, state_dir=state_dir, env=env, home=folder, router_executable=folder / "x")


def left_in(folder: Path) -> list[Path]:
    """What a router has left in its state folder that is not to be kept."""
    kept = ("store.", "downloads.json.lock")
    return [path for path in (folder / "state").iterdir() if not path.name.startswith(kept)]


async def test_it_serves_until_it_is_asked_to_end(tmp_path: Path, fakes: FakeEngines) -> None:
    router = make_router(tmp_path, fakes.command())
    assert await router.start()
    try:
        host, port = router.addresses[0]
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            assert (await client.post(CHAT, json=body("alpha"))).status_code == 200
            assert router.found_llama_server is None
            router.request_end()
            await router.wait()
    finally:
        await router.close()
        await router.close()
    assert router.addresses == []
    assert left_in(tmp_path) == []
    await fakes.engines[0].gone()


async def test_a_taken_port_ends_the_start_before_anything_is_started(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        router = make_router(tmp_path, fakes.command(), router={"port": taken.getsockname()[1]})
        with pytest.raises(BindError, match="cannot listen on"):
            await router.start()
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_startup_model_that_is_unknown_or_fails_ends_the_start(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    unknown = make_router(tmp_path, fakes.command(), startup_model="nobody")
    with pytest.raises(UnknownStartupModelError, match=r"'nobody' is none of the models found"):
        await unknown.start()
    invalid = make_router(tmp_path, fakes.command(), startup_model="alpha")
    (tmp_path / "alpha.gguf").unlink()
    with pytest.raises(StartError, match=r"model 'alpha' is invalid: its file .*alpha.gguf") as no:
        await invalid.start()
    assert not isinstance(no.value, UnknownStartupModelError)
    failing = make_router(tmp_path, fakes.command("--exit-in-load", "3"), startup_model="alpha")
    with pytest.raises(StartError, match=r"startup_model 'alpha': .*exited with status 3"):
        await failing.start()
    assert left_in(tmp_path) == []


async def test_asked_to_end_while_it_starts_it_does_not_come_up(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    router = make_router(tmp_path, fakes.command("--gate-load"), startup_model="alpha")
    starting = asyncio.create_task(router.start(), name="start")
    alpha = await fakes.started("alpha")
    router.request_end()
    # A second signal finds nothing that could be hurried.
    router.request_end()
    assert await starting is False
    await alpha.gone()
    assert router.addresses == []


async def test_what_is_under_way_when_it_is_closed_starts_nothing_more(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    router = make_router(tmp_path, fakes.command("--gate-load"))
    await router.start()
    loading = asyncio.create_task(router.desk.load("alpha"), name="load")
    alpha = await fakes.started("alpha")
    await router.close()
    await alpha.gone()
    with pytest.raises(Exception, match="shutting down"):
        await loading
    assert len(fakes.engines) == 1


async def slow_client(router: Router) -> tuple[RawClient, int]:
    """Give a client that has not taken its whole answer, and the answer's size."""
    client = await RawClient.connect(router.addresses[0][1], receive_buffer_bytes=4096)
    client.send(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.answer()
    (connection,) = router.services.connections
    client.pause()
    connection.transport.set_write_buffer_limits(2**30)
    sent_bytes = 0
    while connection.transport.get_write_buffer_size() == 0:
        connection.transport.write(b"x" * 65536)
        sent_bytes += 65536
        await asyncio.sleep(0)
    return client, sent_bytes


async def test_a_slow_client_gets_the_rest_of_its_answer_when_the_engines_are_gone(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    router = make_router(tmp_path, fakes.command())
    await router.start()
    client, sent_bytes = await slow_client(router)
    router.request_end()
    ending = asyncio.create_task(router.wait(), name="wait")
    await router.desk.shut_down.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    client.resume()
    received = await client.rest()
    await ending
    await router.close()
    assert len(received) == sent_bytes
    await client.close()


async def test_asked_twice_it_does_not_wait_for_a_slow_client(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    router = make_router(tmp_path, fakes.command(), router={"shutdown_deadline_s": 3600})
    await router.start()
    client, _sent_bytes = await slow_client(router)
    router.request_end()
    ending = asyncio.create_task(router.wait(), name="wait")
    await router.desk.shut_down.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    router.request_end()
    async with asyncio.timeout(15):
        await ending
    await router.close()
    client.reset()


async def test_what_the_config_says_of_turns_and_memory_reaches_the_core(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    said = {"max_loaded": 2, "max_wait_s": 7.0, "min_residency_s": 1.0, "max_queue_s": 9.0}
    settings = {**said, "policy": "arrival", "memory": {"cpu": "3GiB", "cuda0": "2GiB"}}
    router = make_router(tmp_path, fakes.command(), router=settings)
    assert await router.start()
    try:
        core = router.desk.core
        assert isinstance(core.policy, ArrivalOrder)
        assert core.ledger.memory.budgets == {"cpu": 3 * 2**30, "cuda0": 2 * 2**30}
        found = {name: getattr(core.ledger.settings, name) for name in said}
        assert found == said
    finally:
        await router.close()


async def test_a_store_that_another_router_uses_is_said_and_done_without(
    tmp_path: Path, fakes: FakeEngines, caplog: pytest.LogCaptureFixture
) -> None:
    router = make_router(tmp_path, fakes.command())
    other = Store.open(tmp_path / "state" / STORE_FILE_NAME)
    try:
        assert await router.start()
        await router.desk.load("alpha")
        assert "is in use by another router" in caplog.text
        assert router.desk.record is None
    finally:
        await router.close()
        other.close()


async def test_requests_are_remembered_unless_the_config_says_no(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    for history in (True, False):
        router = make_router(tmp_path, fakes.command(), router={"history": history})
        assert await router.start()
        assert (router.desk.record is not None) == history
        await router.close()


async def test_a_collection_of_young_objects_does_not_hold_up_streams(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    router = make_router(tmp_path, fakes.command())
    assert await router.start()
    try:
        took_s: list[float] = []
        gc.disable()
        for _ in range(5):
            gc.collect()
            # As long as what a model's settings are kept in.
            fields: list[object] = [took_s] * 30
            young = [list(fields) for _ in range(gc.get_threshold()[0])]
            before_s = time.thread_time()
            gc.collect(0)
            took_s.append((time.thread_time() - before_s) / slowness())
            young.clear()
        assert min(took_s) < CPU_LIMIT_S
    finally:
        gc.enable()
        await router.close()
