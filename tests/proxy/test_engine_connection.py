import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama_router.proxy.engine_connection import EngineConnection, Receiver
from llama_router.proxy.limits import CHUNKED_SLICE_BYTES
from llama_router.proxy.prepared import PreparedResponse
from llama_router.proxy.upstream import Upstream
from tests.support.data_plane import STREAM, data_plane, post, until
from tests.support.scripted_engine import STREAM_HEAD, EngineSide, ScriptedEngine, answer, event

pytestmark = pytest.mark.asyncio
# A chunk to every byte, more than one read of the socket.
CHUNK_COUNT = 30_000
TINY_CHUNKS = b"1\r\nx\r\n" * CHUNK_COUNT
LAST_CHUNK = b"0\r\n\r\n"


class Taker(Receiver):
    """Takes what an EngineConnection says, piece by piece."""

    def __init__(self, connection: EngineConnection, *, decode: bool = False) -> None:
        self._connection = connection
        self._decode = decode
        self.pieces: list[bytes] = []
        self.end = asyncio.get_running_loop().create_future()

    def on_head(self, answer: PreparedResponse, content_length: int | None) -> bytes:  # noqa: ARG002
        self._connection.decode = self._decode
        self._connection.relay = self.pieces.append
        return b""

    def on_end(self) -> None:
        self.end.set_result("")

    def on_lost(self, reason: str, *, malformed: bool) -> None:
        self.end.set_result("malformed" if malformed else reason)


@asynccontextmanager
async def asked(
    *, method: bytes = b"GET", decode: bool = False
) -> AsyncIterator[tuple[Upstream, EngineConnection, Taker, EngineSide]]:
    """A connection whose request the engine has read."""
    async with asyncio.timeout(20), ScriptedEngine() as engine:
        upstream = Upstream(host="127.0.0.1", port=engine.port, connect_timeout_s=5.0)
        connection = await upstream.connect()
        taker = Taker(connection, decode=decode)
        connection.begin(taker, method, b"%b / HTTP/1.1\r\nhost: a\r\n\r\n" % method)
        yield upstream, connection, taker, await engine.begin()
        upstream.close()
        connection.transport.abort()


@pytest.mark.parametrize("decode", [False, True])
async def test_many_small_chunks_are_worked_through_in_slices(*, decode: bool) -> None:
    async with asked(decode=decode) as (upstream, _connection, taker, engine):
        engine.writer.write(STREAM_HEAD + TINY_CHUNKS + LAST_CHUNK)
        assert await taker.end == ""
        whole = b"x" * CHUNK_COUNT if decode else TINY_CHUNKS + LAST_CHUNK
        assert b"".join(taker.pieces) == whole
        assert max(map(len, taker.pieces)) <= CHUNKED_SLICE_BYTES
        # Not a write for each of them.
        assert len(taker.pieces) < 100
        assert upstream.idle_count == 1


async def test_a_fault_between_slices_is_told_behind_what_came_before_it() -> None:
    async with asked() as (upstream, _connection, taker, engine):
        engine.writer.write(STREAM_HEAD + TINY_CHUNKS + b"zz\r\n")
        assert await taker.end == "malformed"
        assert TINY_CHUNKS.startswith(b"".join(taker.pieces))
        assert sum(map(len, taker.pieces)) >= len(TINY_CHUNKS) - 2 * CHUNKED_SLICE_BYTES
        assert upstream.idle_count == 0


async def test_an_engine_that_ends_between_slices_is_heard_to_the_end() -> None:
    async with asked() as (_upstream, connection, taker, engine):
        engine.writer.write(STREAM_HEAD + TINY_CHUNKS + LAST_CHUNK)
        await until(lambda: taker.pieces)
        connection.transport.abort()
        assert await taker.end
        # What had been read when it broke off, and nothing twice.
        assert TINY_CHUNKS.startswith(b"".join(taker.pieces))


async def test_a_slow_client_and_slices_do_not_disturb_each_other() -> None:
    async with asked() as (_upstream, connection, taker, engine):
        engine.writer.write(STREAM_HEAD + TINY_CHUNKS + LAST_CHUNK)
        await until(lambda: taker.pieces)
        connection.hold()
        for _ in range(50):
            await asyncio.sleep(0)
        connection.unhold()
        connection.hold()
        connection.unhold()
        assert await taker.end == ""
        assert b"".join(taker.pieces) == TINY_CHUNKS + LAST_CHUNK


async def test_a_released_connection_says_no_more_of_its_slices() -> None:
    async with asked() as (upstream, connection, taker, engine):
        engine.writer.write(STREAM_HEAD + TINY_CHUNKS + LAST_CHUNK)
        await until(lambda: taker.pieces)
        connection.release()
        count = len(taker.pieces)
        await engine.closed()
        assert len(taker.pieces) == count
        assert not taker.end.done()
        assert upstream.idle_count == 0


@pytest.mark.parametrize(
    ("head", "is_reused"),
    [
        (answer(b""), True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
async def test_after_head_a_connection_is_reused_when_the_length_is_known(
    head: bytes, *, is_reused: bool
) -> None:
    async with asked(method=b"HEAD") as (upstream, _connection, taker, engine):
        await engine.send(head)
        assert await taker.end == ""
        assert upstream.idle_count == is_reused


async def test_an_idle_connection_holds_nothing_of_its_last_client() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1") + LAST_CHUNK)
        await client.answer()
        [idle] = plane.upstream._idle
        assert idle.relay is idle.write_first
        assert getattr(idle.relay, "__self__", None) is None
