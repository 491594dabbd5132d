"""The router's process with what it must not leave behind."""

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from llama_router.stress import settings
from llama_router.stress.director import Director
from llama_router.stress.router_process import (
    RouterStartError,
    claimed_ports,
    marked_processes,
    running_router,
)
from llama_router.stress.wire import connect
from tests.support.ports import HOST, port_window

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX"),
]
DEADLINE_S = 100.0


async def test_it_runs_in_a_home_of_its_own_and_is_measured(short_path: Path) -> None:
    mark = f"test-{os.getpid()}-measured"
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        async with running_router(short_path, director.address, mark) as router:
            client = await connect(router.port)
            key = {"Authorization": f"Bearer {settings.KEYS[0].key}"}
            answer = await client.request("GET", "/v1/models", None, key)
            for model in settings.MODELS:
                assert f'"id":"{model.name}"'.encode() in answer.body
            assert len(router.sockets()) == 1
            await client.close()
            assert router.rss_bytes() > 10 * 1024 * 1024
            assert any("socket" in what for what in router.descriptors().values())
            assert router.process.pid in [process.pid for process in marked_processes(mark)]
            assert await router.end() == 0
        assert router.rss_bytes() == 0
        assert marked_processes(mark) == []
    assert list(router.temp_folder.iterdir()) == []
    llama_server = short_path / "bin" / "llama-server"
    assert llama_server.stat().st_mode & stat.S_IXUSR


async def test_runs_at_the_same_time_have_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = range(port_window(), 32_000, 5)[:3]
    monkeypatch.setattr("llama_router.stress.router_process._PORT_BLOCKS", blocks)
    with claimed_ports() as first, claimed_ports() as second:
        assert (first, second) == (blocks[0] + 1, blocks[1] + 1)
    with socket.create_server((HOST, first)), claimed_ports() as third:
        assert third == second


async def test_where_no_port_is_left_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.stress.router_process._is_free", lambda _port: False)
    with pytest.raises(RouterStartError, match="no ports are left"), claimed_ports():
        pass


async def test_whatever_happens_it_is_ended(short_path: Path) -> None:
    mark = f"test-{os.getpid()}-ended"
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        with pytest.raises(KeyError):
            async with running_router(short_path, director.address, mark) as router:
                raise KeyError
        assert router.process.returncode == -signal.SIGKILL
        assert marked_processes(mark) == []


async def test_a_router_that_does_not_start_says_why(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "router_config", lambda _place: {"version": "7"})
    async with asyncio.timeout(DEADLINE_S), Director(1) as director:
        with pytest.raises(RouterStartError, match="version"):
            async with running_router(short_path, director.address, f"test-{os.getpid()}-start"):
                pass
