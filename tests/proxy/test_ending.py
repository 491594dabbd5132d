import json

import pytest

from llama_router.proxy.errors import QueueFullError
from llama_router.proxy.gate import Ended
from llama_router.proxy.guard import Guard
from llama_router.proxy.limits import CHUNKED_SLICE_BYTES, TAIL_MAX_BYTES
from tests.support.data_plane import STREAM, DataPlane, data_plane, get, post, until
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio

USAGE = b'"usage":{"completion_tokens":16,"prompt_tokens":21,"total_tokens":37}'
TIMINGS = b'"timings":{"cache_n":7,"prompt_n":14,"predicted_n":16}'
COUNTS = event(b'{"x":1,' + TIMINGS + b"}")
PAD = b'{"choices":[{"delta":{"content":"%b"}}]}'


def tokens(ended: Ended) -> tuple[int | None, int | None]:
    return ended.tokens_in, ended.tokens_out


async def last(plane: DataPlane, count: int = 1) -> Ended:
    await until(lambda: len(plane.gate.history) >= count)
    assert len(plane.gate.history) == count
    return plane.gate.history[-1]


async def test_a_good_answer_is_remembered_with_its_tokens_and_the_name_of_its_key() -> None:
    body = b'{"choices":[],' + USAGE + b"}"
    async with data_plane(answer(body), guard=Guard(api_keys=["k"])) as plane:
        for count in (1, 2):
            await plane.ask(post(fields=b"x-api-key: k\r\n"))
            ended = await last(plane, count)
            assert (ended.model, ended.key, ended.end) == ("tiny", "key 1", "-.-")
            assert tokens(ended) == (21, 16)
            assert ended.queue_s is not None
            assert ended.first_byte_s is not None
            assert 0 <= ended.queue_s <= ended.first_byte_s <= ended.total_s


@pytest.mark.parametrize(
    "pieces",
    [
        [COUNTS + event(b"[DONE]") + b"0\r\n\r\n"],
        [COUNTS, event(b"[DONE]"), b"0\r\n\r\n"],
        [COUNTS[:60], COUNTS[60:], event(b"[DONE]"), b"0\r\n\r\n"],
        [
            event(PAD % (b"x" * (CHUNKED_SLICE_BYTES - 100)))
            + COUNTS
            + event(b"[DONE]")
            + b"0\r\n\r\n"
        ],
    ],
    ids=["at once", "one by one", "torn", "sliced"],
)
async def test_the_end_of_a_stream_is_found_however_it_comes(pieces: list[bytes]) -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD)
        await client.head()
        for piece in pieces:
            await engine.send(piece)
            await client.reader.readexactly(len(piece))
        assert tokens(await last(plane)) == (21, 16)


async def test_an_answer_that_ends_with_its_connection_is_read_too() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(version=b"1.0"))
        engine = await plane.engine.begin()
        await engine.send(b"HTTP/1.1 200 OK\r\n\r\n{" + TIMINGS + b"}")
        engine.close()
        await client.answer()
        assert tokens(await last(plane)) == (21, 16)


async def test_of_a_long_answer_the_end_counts() -> None:
    body = b'{"x":"%b",' % (b"y" * 300_000) + USAGE + b"}"
    async with data_plane(answer(body)) as plane:
        await plane.ask(post())
        assert tokens(await last(plane)) == (21, 16)
        early = b"{" + USAGE + b',"x":"%b"}' % (b"y" * (TAIL_MAX_BYTES + 100))
        plane.engine.answer = answer(early)
        # On the same connection; nothing is left of the answer before.
        await plane.ask(post())
        assert tokens(await last(plane, 2)) == (None, None)
        plane.engine.answer = answer(b"{}")
        await plane.ask(post())
        assert tokens(await last(plane, 3)) == (None, None)
        assert plane.engine.connection_count == 1


async def test_an_error_has_no_tokens() -> None:
    async with data_plane(answer(b"{" + USAGE + b"}", status=b"400 Bad Request")) as plane:
        await plane.ask(post())
        assert tokens(await last(plane)) == (None, None)


async def test_one_who_leaves_the_queue_has_neither_waited_its_time_nor_an_answer() -> None:
    async with data_plane() as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        await plane.gate.arrived()
        await client.close()
        ended = await last(plane)
        assert (ended.end, ended.queue_s, ended.first_byte_s) == ("client.queue", None, None)


async def test_one_who_is_refused_is_remembered_as_such() -> None:
    async with data_plane() as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        plane.gate.reject(await plane.gate.arrived(), QueueFullError("full", retry_after_s=1.0))
        found = await client.answer()
        assert found.status == 429
        assert found.fields[b"x-should-retry"] == b"true"
        assert found.fields[b"retry-after"] == b"1"
        ended = await last(plane)
        assert (ended.end, ended.queue_s) == ("router.queue", None)


@pytest.mark.parametrize(
    "request_",
    [
        get(),
        get(b"/tiny/props"),
        post(b"/tokenize"),
        post(b"/admin/load"),
        post(body=b'{"model":"?"}'),
    ],
    ids=["control", "visitor", "tokenize", "order", "unknown"],
)
async def test_what_is_no_inference_is_not_remembered(request_: bytes) -> None:
    async with data_plane(answer()) as plane:
        await plane.ask(request_)
        await plane.ask(post())
        await last(plane)


async def test_without_a_history_nobody_is_asked_to_remember() -> None:
    async with data_plane(answer()) as plane:
        plane.gate.has_history = False
        await plane.ask(post())
        assert plane.gate.history == []


async def test_the_log_tells_ends_and_no_content(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with data_plane(answer()) as plane:
            found = await plane.ask(post(body=b'{"model":"secret name"}'))
            assert json.loads(found.body)["error"]["code"] == "model_not_found"
    lines = [record.getMessage() for record in caplog.records if "end=" in record.getMessage()]
    assert lines == ["POST /v1/chat/completions model=- status=404 end=client.body"]


async def test_it_is_remembered_what_was_asked_and_by_which_id_it_was_known() -> None:
    async with data_plane(answer()) as plane:
        await plane.ask(post(b"/v1/completions?x=1"))
        await plane.gate.arrived()
        ended = await last(plane)
        assert (ended.path, ended.status, ended.request_id) == ("/v1/completions", 200, 1)
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        plane.gate.reject(await plane.gate.arrived(), QueueFullError("full"))
        await client.answer()
        ended = await last(plane, 2)
        assert (ended.path, ended.status, ended.request_id) == ("/v1/chat/completions", 429, 2)
