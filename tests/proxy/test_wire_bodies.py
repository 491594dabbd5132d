import asyncio
import tempfile

import pytest

from llama_router.proxy.body import BodyBudget
from llama_router.proxy.chunked import encode_chunk
from llama_router.proxy.limits import (
    MAX_CONFIG_BODY_BYTES,
    MAX_CONTROL_BODY_BYTES,
    MAX_JSON_BODY_BYTES,
    SPOOL_THRESHOLD_BYTES,
)
from tests.support.data_plane import DataPlane, data_plane, post, until
from tests.support.scripted_engine import answer

pytestmark = pytest.mark.asyncio
CHUNKED_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
)


def padded(size: int, model: bytes = b"tiny") -> bytes:
    body = b'{"model":"%b","x":"' % model
    return body + b"y" * (size - len(body) - 2) + b'"}'


def form(size: int, model: bytes = b"tiny") -> tuple[bytes, bytes]:
    part = b'--b\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = (
        part % (b"file", b'; filename="a"', b"\r\n-" * (size // 3))
        + part % (b"model", b"", model)
        + b"--b--\r\n"
    )
    return body, b"content-type: multipart/form-data; boundary=b\r\n"


async def answered(plane: DataPlane, request: bytes, body: bytes) -> None:
    """The engine gets ``body`` and the client an answer."""
    client = await plane.client()
    client.send(request)
    engine = await plane.engine.begin()
    assert plane.engine.requests[-1].body == body
    await engine.send(answer(b"[]"))
    assert (await client.answer()).body == b"[]"
    await until(lambda: plane.services.budget.used_bytes == 0)


@pytest.mark.parametrize(
    "size",
    [100, 20_000, 300_000, SPOOL_THRESHOLD_BYTES, SPOOL_THRESHOLD_BYTES + 1, 2 * 2**20],
)
async def test_json_of_any_size_arrives(size: int) -> None:
    async with data_plane() as plane:
        await answered(plane, post(body=padded(size)), padded(size))


@pytest.mark.parametrize("size", [100, 9000, 900_000, 5 * 2**20])
async def test_a_form_of_any_size_arrives(size: int) -> None:
    body, fields = form(size)
    async with data_plane() as plane:
        await answered(plane, post(b"/v1/audio/transcriptions", body, fields), body)


@pytest.mark.parametrize("chunk", [1, 100, 70_000])
@pytest.mark.parametrize("size", [300, 100_000, 1_500_000])
async def test_a_chunked_body_arrives_with_a_length(chunk: int, size: int) -> None:
    if size // chunk > 200_000:
        size = 200_000
    body = padded(size)
    chunks = b"".join(encode_chunk(body[at : at + chunk]) for at in range(0, size, chunk))
    async with data_plane() as plane:
        await answered(plane, CHUNKED_HEAD + chunks + b"0\r\n\r\n", body)
        assert b"transfer-encoding" not in plane.engine.requests[-1].fields


@pytest.mark.parametrize("size", [200, 1_500_000])
async def test_a_request_behind_a_chunked_body_is_answered_too(size: int) -> None:
    chunks = encode_chunk(padded(size)) + b"0\r\n\r\n"
    async with data_plane(answer(b"[]")) as plane:
        client = await plane.client()
        client.send((CHUNKED_HEAD + chunks) * 3 + post())
        for _ in range(4):
            assert (await client.answer()).status == 200
        assert [len(one.body) for one in plane.engine.requests] == [size] * 3 + [16]


async def test_no_file_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    opened = []
    make = tempfile.TemporaryFile

    def recorded(*args: object, **kwargs: object) -> object:
        opened.append(make(*args, **kwargs))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    async with data_plane() as plane:
        await answered(plane, post(body=padded(2**21)), padded(2**21))
        client = await plane.client()
        client.send(post(body=padded(2**21, b"nobody")))
        assert (await client.answer()).status == 404
        client.send(post(body=padded(2**22))[: 2**21])
        await until(lambda: len(opened) == 3)
        await client.close()
        await until(lambda: all(file.closed for file in opened))
        assert list(folder.iterdir()) == []


async def test_a_slow_peek_does_not_stand_in_the_way_of_others() -> None:
    body, fields = form(900_000)
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(b"/v1/audio/transcriptions", body, fields))
        other = await plane.client()
        other.send(post())
        first = await plane.engine.begin()
        second = await plane.engine.begin()
        for engine in (first, second):
            await engine.send(answer(b"[]"))
        assert (await client.answer()).body == (await other.answer()).body == b"[]"


@pytest.mark.parametrize("size", [300_000, 2**21])
@pytest.mark.parametrize(
    ("bad", "word"),
    [(b'"model":"tiny",' * 2, b"more than once"), (b'"model":7,', b"string"), (b"!", b"JSON")],
)
async def test_a_large_bad_body_costs_the_request_only(size: int, bad: bytes, word: bytes) -> None:
    async with data_plane(answer(b"[]")) as plane:
        client = await plane.client()
        # Many members, so that even the smaller one is read elsewhere.
        members = b",".join(b'"%d":[]' % number for number in range(5000))
        body = b"{" + bad + b'"x":"' + b"y" * size + b'",' + members + b"}"
        client.send(post(body=body))
        found = await client.answer()
        assert (found.status, word in found.body) == (400, True)
        client.send(post())
        assert (await client.answer()).body == b"[]"


async def test_a_form_without_an_end_is_refused() -> None:
    body, fields = form(100)
    async with data_plane() as plane:
        found = await plane.ask(post(b"/v1/audio/transcriptions", body[:-8], fields))
        assert found.status == 400


async def test_a_length_beyond_the_limit_gets_no_leave_to_send() -> None:
    head = b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
    async with data_plane() as plane:
        client = await plane.client()
        client.send(head + b"content-length: %d\r\n\r\n" % (MAX_JSON_BODY_BYTES + 1))
        found = await client.answer()
        assert (found.status, found.fields[b"connection"]) == (413, b"close")
        assert await client.rest() == b""


async def test_endless_chunks_are_stopped_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.proxy.prepared.MAX_JSON_BODY_BYTES", 100_000)
    async with data_plane() as plane:
        client = await plane.client()
        client.send(CHUNKED_HEAD + encode_chunk(b"x" * 1000) * 99)
        connection = await plane.connection()
        await until(lambda: connection._reader and connection._reader.received_bytes == 99_000)
        client.send(encode_chunk(b"x" * 1000) * 200)
        assert (await client.answer()).status == 413
        assert plane.services.budget.used_bytes == 0


async def test_leave_to_send_is_given() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        request = post(fields=b"expect: 100-continue\r\n")
        head, _, body = request.partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 100 Continue"
        client.send(body)
        engine = await plane.engine.begin()
        assert b"expect" not in plane.engine.requests[0].fields
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_no_leave_is_given_for_a_body_that_is_there() -> None:
    async with data_plane(answer(b"[]")) as plane:
        found = await plane.ask(post(fields=b"expect: 100-continue\r\n"))
        assert found.status == 200


@pytest.mark.parametrize("size", [50_000, 500_000])
async def test_bodies_beyond_the_memory_for_all_are_turned_away(size: int) -> None:
    async with data_plane() as plane:
        plane.services.budget = BodyBudget(size + 40_000)
        plane.gate.holds = True
        first = await plane.client()
        first.send(post(body=padded(size)))
        submission = await plane.gate.arrived()
        found = await plane.ask(post(body=padded(size)))
        assert (found.status, found.fields[b"retry-after"]) == (503, b"5")
        assert found.fields[b"x-should-retry"] == b"true"
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        await engine.send(answer(b"[]"))
        assert (await first.answer()).body == b"[]"
        await until(lambda: plane.services.budget.used_bytes == 0)


async def test_a_slow_engine_holds_the_sending_of_a_large_body() -> None:
    body = padded(20 * 2**20)
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=body))
        engine = await plane.engine.accept()
        await engine.head()
        for _ in range(300):
            await asyncio.sleep(0)
        # A megabyte, not twenty, is on its way; the rest waits on disk.
        assert plane.services.budget.used_bytes == 0
        assert await engine.reader.readexactly(len(body)) == body
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"
        assert plane.upstream.idle_count == 1


@pytest.mark.parametrize("in_one_piece", [True, False])
async def test_the_control_plane_is_asked_in_few_words(*, in_one_piece: bool) -> None:
    async with data_plane() as plane:
        for size, status in ((MAX_CONTROL_BODY_BYTES, 200), (MAX_CONTROL_BODY_BYTES + 1, 413)):
            client = await plane.client()
            request = post(b"/admin/load", b"x" * size)
            if in_one_piece:
                (await plane.connection()).data_received(request)
            else:
                client.send(request)
            assert (await client.answer()).status == status
            await client.close()
            await until(lambda: not plane.services.connections)


async def test_a_path_that_is_no_models_takes_no_large_body_either() -> None:
    async with data_plane() as plane:
        body = b"x" * (MAX_CONTROL_BODY_BYTES + 1)
        request = post(b"/unknown/props", body).replace(b"POST", b"GET")
        assert (await plane.ask(request)).status == 413


async def test_a_config_that_is_to_be_checked_may_be_as_long_as_a_file() -> None:
    path = b"/admin/config/validate"
    async with data_plane() as plane:
        assert (await plane.ask(post(path, b"x" * (MAX_CONTROL_BODY_BYTES + 1)))).status == 200
        assert (await plane.ask(post(path, b"x" * MAX_CONFIG_BODY_BYTES))).status == 200
        too_long = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        assert (await plane.ask(too_long % (path, MAX_CONFIG_BODY_BYTES + 1))).status == 413
