import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from llama_router.engines.readiness import is_healthy

HOST = "127.0.0.1"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def probe(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], answer: bytes, path: str = "/health"
) -> tuple[bool, bytes]:
    """Ask a server that gives ``answer`` and hangs up; return the verdict and what was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async def run() -> bool:
        server = await asyncio.start_server(serve, HOST, 0)
        async with server:
            return await is_healthy(HOST, server.sockets[0].getsockname()[1], path)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run()), asked[0]


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 200\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 2000 OK\r\n\r\n", False),
        (b"HTTP/2 200 OK\r\n\r\n", False),
        (b"", False),
        (b"200 OK\r\n", False),
        (b"x" * 100_000, False),
    ],
)
def test_only_status_200_is_healthy(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], answer: bytes, *, healthy: bool
) -> None:
    assert probe(loop_factory, answer)[0] is healthy


def test_the_request_is_plain_and_the_path_cannot_break_out_of_it() -> None:
    _, asked = probe(uvloop.new_event_loop, b"", "/a b\r\nX: y?q=%20")
    lines = asked.split(b"\r\n")
    assert lines[0] == b"GET /a%20b%0D%0AX:%20y?q=%20 HTTP/1.1"
    assert lines[1].startswith(b"Host: 127.0.0.1:")


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_refused_connection_and_one_without_an_answer_are_not_healthy(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.engines.readiness.PROBE_TIMEOUT_S", 0.05)
    held: list[asyncio.StreamWriter] = []

    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            assert not await is_healthy(HOST, port, "/health")
            held[0].close()
        assert not await is_healthy(HOST, port, "/health")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_without_a_path_an_accepted_connection_is_enough(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def run() -> None:
        with socket.create_server((HOST, 0)) as mute:
            port = mute.getsockname()[1]
            assert await is_healthy(HOST, port, "")
        assert not await is_healthy(HOST, port, "")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())
