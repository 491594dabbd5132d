import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_router.proxy.errors import (
    ContentEncodingError,
    ExpectationError,
    ForbiddenError,
    MalformedRequestError,
    RequestError,
)
from llama_router.proxy.guard import Guard
from llama_router.proxy.head import ResponseHeadError
from llama_router.proxy.limits import MAX_JSON_BODY_BYTES, MAX_MULTIPART_BODY_BYTES
from llama_router.proxy.prepared import (
    HeadCache,
    PreparedRequest,
    PreparedResponse,
    request_cache,
    responses,
)

LINES = st.sampled_from([b"POST /v1/x HTTP/1.1", b"GET / HTTP/1.1", b"POST /v1/x HTTP/1.0"])
FIELDS = st.lists(
    st.sampled_from(
        [b"Content-Length: ", b"content-length: ", b"Content-Length:", b"CONTENT-LENGTH: ", b"x: "]
    ).flatmap(
        lambda name: st.sampled_from(
            [b"0", b"5", b"12", b"012", b"5 ", b"+5", b"9" * 15, b"9" * 16, b"9" * 30, b"", b"5,5"]
        ).map(lambda value: name + value)
    ),
    max_size=3,
)


def shape(prepared: PreparedRequest, length: int | None) -> tuple[object, ...]:
    head = prepared.head
    if length is None:
        length = head.content_length
    rest = (head.method, head.target, head.http_1_0, prepared.fields, prepared.has_body)
    return (*rest, length)


def outcome(cache: HeadCache[PreparedRequest], data: bytes) -> object:
    try:
        return shape(*cache.get(data))
    except RequestError as error:
        return type(error)


@given(st.lists(st.tuples(LINES, FIELDS), min_size=1, max_size=12))
def test_a_cache_that_has_seen_other_heads_says_what_a_new_one_says(
    heads: list[tuple[bytes, list[bytes]]],
) -> None:
    cache = request_cache(Guard())
    for line, fields in heads:
        data = b"\r\n".join([line, b"Host: localhost", *fields, b"", b""])
        assert outcome(cache, data) == outcome(request_cache(Guard()), data)


@given(st.lists(FIELDS, min_size=1, max_size=12))
def test_the_same_holds_for_answers(heads: list[list[bytes]]) -> None:
    def result(cache: HeadCache[PreparedResponse], data: bytes) -> object:
        try:
            found, length = cache.get(data)
        except ResponseHeadError:
            return None
        return found.fields, found.head.content_length if length is None else length

    shared = HeadCache(responses._prepare)
    for fields in heads:
        data = b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"", b""])
        assert result(shared, data) == result(HeadCache(responses._prepare), data)


def head(fields: bytes = b"", line: bytes = b"POST /v1/x HTTP/1.1") -> bytes:
    return line + b"\r\nHost: localhost\r\n" + fields + b"\r\n"


def test_a_head_is_worked_out_once_for_all_lengths() -> None:
    cache = request_cache(Guard())
    first, length = cache.get(head(b"Content-Length: 5\r\n"))
    second, other = cache.get(head(b"Content-Length: 77\r\n"))
    assert first is second
    assert (length, other) == (5, 77)


def test_a_refusal_is_not_kept() -> None:
    calls = []

    def prepare(data: bytes) -> None:
        calls.append(data)
        raise MalformedRequestError("no")

    cache = HeadCache(prepare)
    for _ in range(2):
        with pytest.raises(MalformedRequestError):
            cache.get(b"x\r\n\r\n")
    assert len(calls) == 2


def test_the_cache_is_bounded_in_heads_and_in_their_size() -> None:
    cache = HeadCache(bytes)
    for number in range(2000):
        cache.get(b"%d\r\n\r\n" % number)
    assert len(cache._entries) <= 256
    before = dict(cache._entries)
    cache.get(b"x" * 5000)
    assert cache._entries == before


def test_what_follows_from_a_head_is_worked_out() -> None:
    cache = request_cache(Guard(api_keys=["k"]))
    fields = (
        b"Authorization: Bearer k\r\nAccept: text/event-stream\r\nExpect: 100-continue\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5\r\nX: y\r\n"
    )
    found, _ = cache.get(head(fields))
    assert found.line == b"POST /v1/x HTTP/1.1\r\n"
    assert b"Authorization" not in found.fields
    assert b"x: y\r\n" in found.fields
    assert found.has_body
    assert found.expects_continue
    assert found.form_type == b"multipart/form-data; boundary=b"
    assert found.body_limit_bytes == MAX_MULTIPART_BODY_BYTES
    plain, _ = request_cache(Guard()).get(head(b"Transfer-Encoding: chunked\r\n"))
    assert plain.body_limit_bytes == MAX_JSON_BODY_BYTES
    assert plain.has_body
    old, _ = request_cache(Guard()).get(
        head(b"Expect: 100-continue\r\nContent-Length: 1\r\n", b"POST /v1/x HTTP/1.0")
    )
    assert not old.expects_continue


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (b"Content-Encoding: gzip\r\n", ContentEncodingError),
        (b"Content-Encoding: identity\r\nContent-Encoding: br\r\n", ContentEncodingError),
        (b"Expect: miracles\r\n", ExpectationError),
        (b"Content-Type: a/b\r\nContent-Type: a/b\r\n", MalformedRequestError),
        (b"Sec-Fetch-Site: cross-site\r\n", ForbiddenError),
    ],
)
def test_what_cannot_be_taken_is_refused(fields: bytes, error: type[RequestError]) -> None:
    with pytest.raises(error):
        request_cache(Guard()).get(head(fields))


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("path", [b"/health?model=a&autoload=1", b"/upstream/a/x?autoload=true"])
def test_a_foreign_page_cannot_start_an_engine_by_a_safe_method(method: bytes, path: bytes) -> None:
    line = method + b" " + path + b" HTTP/1.1"
    cache = request_cache(Guard())
    cache.get(head(line=line))
    if path.startswith(b"/upstream") or method != b"OPTIONS":
        with pytest.raises(ForbiddenError):
            cache.get(head(b"Sec-Fetch-Site: cross-site\r\n", line))
