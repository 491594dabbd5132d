import asyncio
from typing import IO

import pytest

from llama_router.proxy.body import Body, BodyBudget, BodyReader
from llama_router.proxy.chunked import encode_chunk
from llama_router.proxy.errors import (
    BodyTooLargeError,
    InternalError,
    MalformedRequestError,
    RequestError,
    TooManyBodiesError,
)
from llama_router.proxy.limits import SPOOL_PIECE_BYTES, SPOOL_THRESHOLD_BYTES
from tests.support.data_plane import until

LIMIT_BYTES = 64 * 2**20


class Reading:
    """A BodyReader with what it says to its connection."""

    def __init__(
        self, length: int | None, *, limit: int = LIMIT_BYTES, budget: BodyBudget | None = None
    ) -> None:
        self.budget = budget or BodyBudget()
        self.paused = 0
        self.done: list[Body | RequestError] = []
        self.reader = BodyReader(
            content_length=length,
            limit_bytes=limit,
            budget=self.budget,
            pause=self.pause,
            resume=self.resume,
            on_done=self.done.append,
        )

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.paused -= 1

    async def feed(self, data: bytes) -> tuple[int, Body | None]:
        """As a connection does: not while it is held."""
        found = self.reader.feed(data)
        if not self.reader.ended:
            await until(lambda: not self.paused)
        return found

    async def body(self) -> Body:
        await until(lambda: self.done)
        [found] = self.done
        assert isinstance(found, Body)
        return found


def content(body: Body) -> bytes:
    return body.file.read() if body.file is not None else body.data


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.asyncio
async def test_a_small_body_stays_in_memory(piece: int) -> None:
    reading = Reading(1000)
    data = bytes(range(250)) * 4
    body = None
    for start in range(0, 1000, piece):
        used, body = await reading.feed(data[start : start + piece])
        assert used == len(data[start : start + piece])
    assert body is not None
    assert (body.data, body.file, body.size_bytes) == (data, None, 1000)
    assert reading.budget.used_bytes == 1000
    body.release()
    body.release()
    assert reading.budget.used_bytes == 0
    assert reading.done == []


@pytest.mark.asyncio
async def test_what_follows_a_body_is_left() -> None:
    assert Reading(3).reader.feed(b"abcdef")[0] == 3
    used, body = Reading(None).reader.feed(b"3\r\nabc\r\n0\r\n\r\nGET")
    assert used == 13
    assert body is not None
    assert body.data == b"abc"


@pytest.mark.parametrize("size", [SPOOL_THRESHOLD_BYTES + 1, 3 * SPOOL_THRESHOLD_BYTES])
@pytest.mark.parametrize("piece", [65_536, 262_144, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.asyncio
async def test_a_large_body_goes_to_disk(size: int, piece: int, *, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    coded = encode_chunk(data) + b"0\r\n\r\n" if chunked else data
    reading = Reading(None if chunked else size)
    worst = 0
    for start in range(0, len(coded), piece):
        await reading.feed(coded[start : start + piece])
        worst = max(worst, reading.budget.used_bytes)
    body = await reading.body()
    assert worst <= SPOOL_THRESHOLD_BYTES + SPOOL_PIECE_BYTES + piece
    assert (body.size_bytes, body.data) == (size, b"")
    assert content(body) == data
    assert reading.budget.used_bytes == 0
    file = body.file
    assert file is not None
    body.release()
    assert body.file is None
    await until(lambda: file.closed)


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.asyncio
async def test_what_comes_while_the_disk_works_is_kept_in_order(turns: int) -> None:
    # A connection gives the rest of one read in slices, whether the disk is ready or not.
    data = bytes(range(256)) * 8000
    coded = encode_chunk(data) + b"0\r\n\r\n"
    reading = Reading(None)
    for start in range(0, len(coded), 5000):
        reading.reader.feed(coded[start : start + 5000])
        for _ in range(turns):
            await asyncio.sleep(0)
    body = await reading.body()
    assert content(body) == data
    assert reading.budget.used_bytes == 0
    body.release()


@pytest.mark.parametrize("after", range(8))
@pytest.mark.asyncio
async def test_closing_at_any_moment_gives_everything_back(after: int) -> None:
    reading = Reading(3 * 2**20)
    files: list[IO[bytes]] = []
    for number in range(after):
        reading.reader.feed(b"x" * 400_000)
        if number % 2:
            await asyncio.sleep(0)
    if reading.reader._file is not None:
        files.append(reading.reader._file)
    writing = reading.reader._writing
    reading.reader.close()
    reading.reader.close()
    assert reading.budget.used_bytes == 0
    if writing is not None:
        await asyncio.wait([writing])
        await asyncio.sleep(0)
    await until(lambda: reading.reader._file is None and all(one.closed for one in files))
    assert reading.budget.used_bytes == 0
    assert reading.done == []


@pytest.mark.asyncio
async def test_limits_hold_for_what_is_said_and_for_what_is_sent() -> None:
    with pytest.raises(BodyTooLargeError):
        Reading(101, limit=100)
    reading = Reading(None, limit=100)
    reading.reader.feed(encode_chunk(b"x" * 60))
    with pytest.raises(BodyTooLargeError):
        reading.reader.feed(encode_chunk(b"x" * 60))
    reading.reader.close()
    assert reading.budget.used_bytes == 0


@pytest.mark.asyncio
async def test_malformed_chunks_are_refused() -> None:
    reading = Reading(None)
    reading.reader.feed(encode_chunk(b"x" * 60))
    with pytest.raises(MalformedRequestError):
        reading.reader.feed(b"no\r\n")
    reading.reader.close()
    assert reading.budget.used_bytes == 0


@pytest.mark.asyncio
async def test_single_bytes_in_chunks_do_not_cost_more_than_bytes() -> None:
    reading = Reading(None)
    for _ in range(20):
        reading.reader.feed(encode_chunk(b"x") * 1000)
    assert len(reading.reader._pieces) == 20
    assert reading.budget.used_bytes == 20_000
    reading.reader.close()


@pytest.mark.asyncio
async def test_there_is_an_end_to_the_memory_for_all() -> None:
    budget = BodyBudget(1000)
    first, second = Reading(600, budget=budget), Reading(600, budget=budget)
    _, body = first.reader.feed(b"x" * 600)
    with pytest.raises(TooManyBodiesError) as caught:
        second.reader.feed(b"x" * 600)
    assert caught.value.retry_after_s
    second.reader.close()
    assert budget.used_bytes == 600
    assert body is not None
    body.release()
    assert budget.used_bytes == 0


@pytest.mark.asyncio
async def test_a_full_disk_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> IO[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    reading = Reading(2 * 2**20)
    reading.reader.feed(b"x" * (2 * 2**20))
    await until(lambda: reading.done)
    [error] = reading.done
    assert isinstance(error, InternalError)
    assert "No space left" in error.message
    assert reading.budget.used_bytes == 0


@pytest.mark.asyncio
async def test_bodies_on_disk_share_a_limit() -> None:
    size = SPOOL_THRESHOLD_BYTES + 1000
    budget = BodyBudget(disk_limit_bytes=2 * size + 10)
    first, second = Reading(size, budget=budget), Reading(size, budget=budget)
    await first.feed(b"x" * size)
    body = await first.body()
    assert budget.used_on_disk_bytes == size
    await second.feed(b"x" * (size - 10))
    third = Reading(size, budget=budget)
    with pytest.raises(TooManyBodiesError):
        await third.feed(b"x" * size)
    third.reader.close()
    third.reader.close()
    second.reader.close()
    await until(lambda: second.reader._writing is None)
    assert budget.used_on_disk_bytes == size
    body.release()
    body.release()
    assert (budget.used_bytes, budget.used_on_disk_bytes) == (0, 0)
