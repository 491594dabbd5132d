import pytest

from llama_router.proxy.guard import Guard
from llama_router.proxy.limits import MAX_HEAD_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from tests.support.data_plane import data_plane, get, post
from tests.support.scripted_engine import answer

pytestmark = pytest.mark.asyncio

HOST = b"host: localhost\r\n"
JSON = b'{"model":"tiny"}'

REFUSED = {
    "length and chunked": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    ),
    "two equal lengths": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    ),
    "two lengths in two spellings": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\n{}",
    ),
    "signed length": (400, b"POST /v1/x HTTP/1.1\r\n" + HOST + b"content-length: +2\r\n\r\n{}"),
    "list of codings": (
        501,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    "empty coding before chunked": (
        501,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunked in HTTP/1.0": (
        400,
        b"POST /v1/x HTTP/1.0\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "bad chunk size": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n",
    ),
    "chunk longer than it says": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n",
    ),
    "no host": (400, b"GET /health HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    "HTTP/2.0": (505, b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n"),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "connect": (501, b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "absolute target": (400, b"GET http://localhost/health HTTP/1.1\r\n" + HOST + b"\r\n"),
    "fragment": (400, b"GET /health#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    "bare line feeds": (400, b"GET /health HTTP/1.1\nhost: localhost\n\n"),
    "folded line": (400, b"GET /health HTTP/1.1\r\n" + HOST + b"a: b\r\n c\r\n\r\n"),
    "space before the colon": (400, b"GET /health HTTP/1.1\r\n" + HOST + b"a : b\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "long target": (414, get(b"/" + b"a" * MAX_TARGET_BYTES)),
    "endless target": (414, b"GET /" + b"a" * (MAX_HEAD_BYTES + 1)),
    "large head": (431, get(fields=b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n")),
    "endless head": (431, b"GET / HTTP/1.1\r\na: " + b"b" * MAX_HEAD_BYTES),
    "many fields": (431, get(fields=b"a: b\r\n" * MAX_HEADER_COUNT)),
    "gzip": (415, post(fields=b"content-encoding: gzip\r\n")),
    "gzip behind identity": (
        415,
        post(fields=b"content-encoding: identity\r\ncontent-encoding: gzip\r\n"),
    ),
    "two types": (400, post(fields=b"content-type: a/b\r\ncontent-type: c/d\r\n")),
    "another expectation": (417, post(fields=b"expect: wonders\r\n")),
    "large body": (
        413,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"content-length: 70000000\r\n\r\n",
    ),
    "larger than any integer": (
        400,
        b"POST /v1/x HTTP/1.1\r\n" + HOST + b"content-length: %b\r\n\r\n" % (b"9" * 40),
    ),
    "foreign host": (403, b"GET /health HTTP/1.1\r\nhost: evil.example\r\n\r\n"),
    "foreign page": (403, post(fields=b"sec-fetch-site: cross-site\r\n")),
    "foreign page starting an engine": (
        403,
        get(b"/health?model=tiny&autoload=1", b"sec-fetch-site: cross-site\r\n"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_the_connection_closed_and_no_engine_asked(name: str) -> None:
    status, request = REFUSED[name]
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(request)
        found = await client.answer()
        assert found.status == status
        assert found.fields[b"connection"] == b"close"
        assert b'"error"' in found.body
        assert await client.rest() == b""
        assert plane.engine.connection_count == 0
        assert plane.gate.submissions == []


@pytest.mark.parametrize("name", ["length and chunked", "no host", "bare line feeds", "TLS"])
async def test_it_is_refused_byte_by_byte_as_well(name: str) -> None:
    status, request = REFUSED[name]
    async with data_plane(answer()) as plane:
        client = await plane.client()
        for byte in request:
            client.send(bytes([byte]))
        assert (await client.answer()).status == status
        assert plane.engine.connection_count == 0


async def test_what_comes_after_a_refusal_is_thrown_away() -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n" + post() * 20)
        assert (await client.answer()).status == 505
        assert await client.rest() == b""
        assert plane.gate.submissions == []


async def test_http_0_9_is_refused() -> None:
    async with data_plane(answer()) as plane:
        found = await plane.ask(b"GET /health\r\n\r\n")
        assert found.status in (400, 505)


async def test_an_upgrade_is_answered_as_plain_http() -> None:
    async with data_plane(answer(b"[]")) as plane:
        found = await plane.ask(
            post(
                fields=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
                b"http2-settings: AAA\r\n"
            )
        )
        assert (found.status, found.body) == (200, b"[]")
        assert b"upgrade" not in plane.engine.requests[0].head.lower()


async def test_keys_stay_with_the_router() -> None:
    async with data_plane(answer(), guard=Guard(api_keys=["secret"])) as plane:
        assert (await plane.ask(post())).status == 401
        found = await plane.ask(post(fields=b"x-api-key: secret\r\nauthorization: Basic q\r\n"))
        assert found.status == 200
        assert b"secret" not in plane.engine.requests[0].head
        assert b"authorization" not in plane.engine.requests[0].head


async def test_a_public_path_does_not_start_an_engine_without_a_key() -> None:
    async with data_plane(answer(), guard=Guard(api_keys=["secret"])) as plane:
        assert (await plane.ask(get(b"/health?model=tiny"))).status == 200
        assert (await plane.ask(get(b"/health?model=tiny&autoload=1"))).status == 401
        assert [one.may_load for one in plane.gate.submissions] == [False]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", b"JSON"),
        (b"{}", b"names no model"),
        (b'{"model":7}', b"string"),
        (b'{"model":"a","model":"b"}', b"more than once"),
        (b'{"model":"a"', b"JSON"),
        (b"\xef\xbb\xbf" + JSON, b"JSON"),
        (b'{"model":"\xff"}', b"UTF-8"),
        (b'{"x":' + b"[" * 100_000, b"nested"),
    ],
)
async def test_a_bad_body_costs_the_request_and_not_the_connection(
    body: bytes, word: bytes
) -> None:
    async with data_plane(answer(b"[]")) as plane:
        client = await plane.client()
        client.send(post(body=body))
        found = await client.answer()
        assert found.status == 400
        assert b"invalid_request_error" in found.body
        assert word in found.body
        client.send(post())
        assert (await client.answer()).body == b"[]"


async def test_unknown_models_and_closed_paths_are_not_found() -> None:
    async with data_plane(answer()) as plane:
        plane.gate.closed_paths = {"/v1/embeddings"}
        plane.gate.ambiguous = {"stem"}
        unknown = await plane.ask(post(body=b'{"model":"../../etc/passwd"}'))
        assert (unknown.status, b"model_not_found" in unknown.body) == (404, True)
        assert (await plane.ask(post(b"/v1/embeddings"))).status == 404
        assert (await plane.ask(post(body=b'{"model":"stem"}'))).status == 400
        assert (await plane.ask(get(b"/upstream/nobody/x"))).status == 404
        assert (await plane.ask(get(b"/props"))).status == 503
        assert plane.engine.connection_count == 0
