import pytest

from tests.support.data_plane import STREAM, data_plane, post
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio


async def test_an_old_client_gets_a_chunked_answer_without_chunks() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM, version=b"1.0", fields=b"connection: keep-alive\r\n"))
        engine = await plane.engine.begin()
        assert engine is not None
        await engine.send(STREAM_HEAD + event(b"1")[:9])
        await engine.send(event(b"1")[9:] + event(b"2") + b"0\r\n\r\n")
        found = await client.answer()
        assert found.body == b"data: 1\n\ndata: 2\n\n"
        assert b"transfer-encoding" not in found.fields
        assert found.fields[b"connection"] == b"close"
        assert plane.upstream.idle_count == 1


async def test_an_old_client_may_keep_its_connection() -> None:
    async with data_plane(answer(b"[]")) as plane:
        client = await plane.client()
        for _ in range(2):
            client.send(post(version=b"1.0", fields=b"connection: keep-alive\r\n"))
            found = await client.answer()
            assert (found.body, found.fields[b"connection"]) == (b"[]", b"keep-alive")
        client.send(post(version=b"1.0"))
        assert (await client.answer()).fields[b"connection"] == b"close"
        assert await client.rest() == b""


async def test_an_old_client_without_a_host_is_served() -> None:
    async with data_plane(answer(b"[]")) as plane:
        client = await plane.client()
        client.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_the_answer_to_head_has_no_body() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(b"HEAD /upstream/tiny/x HTTP/1.1\r\nhost: localhost\r\n\r\n" + post())
        engine = await plane.engine.begin()
        await engine.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        found = await client.answer(to_head=True)
        assert found.fields[b"content-length"] == b"1000"
        assert (await engine.request()).body == b'{"model":"tiny"}'
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_an_error_to_head_has_no_body() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(b"HEAD /upstream/nobody/x HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
        for _ in range(2):
            assert (await client.answer(to_head=True)).status == 404


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("fields", [b"", b"content-length: 0\r\n", b"content-length: 5\r\n"])
async def test_some_answers_have_no_body(status: bytes, fields: bytes) -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post() + post())
        engine = await plane.engine.begin()
        await engine.send(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n")
        found = await client.answer()
        if status.startswith(b"204"):
            assert b"content-length" not in found.fields
        await engine.request()
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_an_answer_that_ends_with_its_connection_gets_chunks() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        await engine.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nfirst ")
        await engine.send(b"second")
        engine.close()
        found = await client.answer()
        assert (found.body, found.fields[b"transfer-encoding"]) == (b"first second", b"chunked")
        client.send(post())
        again = await plane.engine.begin()
        await again.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_an_answer_in_single_bytes_is_the_same() -> None:
    whole = STREAM_HEAD + event(b"1") + event(b"2") + b"0\r\nx-trailer: 1\r\n\r\n"
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        for byte in whole:
            await engine.send(bytes([byte]))
        assert (await client.answer()).body == b"data: 1\n\ndata: 2\n\n"


async def test_fields_of_one_connection_do_not_cross() -> None:
    fields = (
        b"connection: x-private\r\nx-private: 1\r\nkeep-alive: 5\r\nproxy-authorization: a\r\n"
        b"x-forwarded-for: 1.2.3.4\r\nforwarded: for=a\r\ncookie: c\r\nte: trailers\r\n"
        b"x-llama-router-secret: s\r\naccept-encoding: gzip\r\nx-kept: 1\r\n"
    )
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(fields=fields))
        engine = await plane.engine.begin()
        seen = plane.engine.requests[0].fields
        assert sorted(seen) == [b"content-length", b"host", b"x-kept"]
        await engine.send(
            answer(
                b"[]",
                fields=b"connection: x-own\r\nx-own: 1\r\nset-cookie: a\r\n"
                b"access-control-allow-origin: *\r\nx-kept: 2\r\n",
            )
        )
        found = await client.answer()
        assert sorted(found.fields) == [b"content-length", b"content-type", b"x-kept"]


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (b"/upstream/tiny/a/b?c=d", b"/a/b?c=d"),
        (b"/upstream/tiny", b"/"),
        (b"/upstream/user/repo:Q4/v1/x", b"/v1/x"),
        (b"/upstream/user%2Frepo:Q4/%41", b"/%41"),
        (b"/user/repo:Q4/props?x=1", b"/props?x=1"),
        (b"/tiny/slots", b"/slots"),
    ],
)
async def test_a_model_in_the_path_is_cut_off(path: bytes, seen: bytes) -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path)
        assert (await client.answer()).status == 200
        assert plane.engine.requests[0].line == b"GET " + seen + b" HTTP/1.1"
