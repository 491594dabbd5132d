import json

import pytest

from llama_router.proxy import answer
from llama_router.proxy.answer import Framing
from llama_router.proxy.errors import AuthenticationError, ModelLoadFailedError, QueueFullError
from llama_router.proxy.head import RequestHead, ResponseHead


def asked(method: bytes = b"POST", *, old: bool = False) -> RequestHead:
    head = RequestHead()
    head.method, head.http_1_0 = method, old
    return head


def given(status: int = 200, *, length: int | None = None, chunked: bool = False) -> ResponseHead:
    return ResponseHead(status, b"OK", [], True, length, chunked)


@pytest.mark.parametrize(
    ("request_", "head", "framing"),
    [
        (asked(), given(length=5), Framing.RAW),
        (asked(), given(chunked=True), Framing.RAW),
        (asked(), given(), Framing.CHUNKED),
        (asked(old=True), given(length=5), Framing.RAW),
        (asked(old=True), given(chunked=True), Framing.CLOSE),
        (asked(old=True), given(), Framing.CLOSE),
        (asked(b"HEAD"), given(chunked=True), Framing.NONE),
        (asked(b"HEAD", old=True), given(), Framing.NONE),
        (asked(), given(204), Framing.NONE),
        (asked(), given(304, length=5), Framing.NONE),
    ],
)
def test_the_framing_fits_both_sides(
    request_: RequestHead, head: ResponseHead, framing: Framing
) -> None:
    assert answer.choose_framing(request_, head) is framing


@pytest.mark.parametrize(
    ("request_", "length", "framing", "close", "lines"),
    [
        (asked(), 5, Framing.RAW, False, b"content-length: 5\r\n\r\n"),
        (asked(), None, Framing.RAW, False, b"transfer-encoding: chunked\r\n\r\n"),
        (asked(), None, Framing.CHUNKED, True,
         b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"),
        (asked(old=True), None, Framing.CLOSE, True, b"connection: close\r\n\r\n"),
        (asked(old=True), 0, Framing.RAW, False,
         b"content-length: 0\r\nconnection: keep-alive\r\n\r\n"),
        (asked(b"HEAD"), None, Framing.NONE, False, b"\r\n"),
    ],
)  # fmt: skip
def test_a_head_says_how_its_body_ends(
    request_: RequestHead, length: int | None, framing: Framing, lines: bytes, *, close: bool
) -> None:
    assert answer.head_end(request_, length, framing, close=close) == lines


def test_an_error_is_a_whole_answer() -> None:
    error = ModelLoadFailedError("no 'room'", param="model", retry_after_s=0.2, should_retry=True)
    head, _, body = answer.error_response(error, close=True).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert set(lines[1:]) == {
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"retry-after: 1",
        b"x-should-retry: true",
        b"connection: close",
    }
    assert json.loads(body) == {
        "error": {
            "message": "no 'room'",
            "type": "server_error",
            "param": "model",
            "code": "model_load_failed",
        }
    }


def test_an_error_to_head_keeps_its_length_and_has_no_body() -> None:
    whole = answer.error_response(AuthenticationError("no"), close=False)
    head = answer.error_response(AuthenticationError("no"), close=False, head_only=True)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert b"www-authenticate: Bearer\r\n" in head
    assert b"connection" not in head
    assert b"retry" not in head


def test_a_stream_of_our_own_is_framed_for_its_client() -> None:
    head, framing = answer.stream_head(asked(), close=False)
    assert framing is Framing.CHUNKED
    assert b"transfer-encoding: chunked" in head
    assert answer.framed(b"ab", framing) == b"2\r\nab\r\n"
    assert answer.end_of(framing) == b"0\r\n\r\n"
    old_head, old = answer.stream_head(asked(old=True), close=False)
    assert old is Framing.CLOSE
    assert b"connection: close" in old_head
    assert answer.framed(b"ab", old) == b"ab"
    assert answer.end_of(old) == b""
    assert answer.heartbeat(old) == b": waiting\n\n"
    assert b"connection: close" in answer.stream_head(asked(), close=True)[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b'{"error":{"message":7}}', "the engine answered with status 418"),
        (b'{"error":"plain"}', "the engine answered with status 418"),
        (b'{"error":{"message":"cut off', "the engine answered with status 418"),
        (b'{"error":{"message":"\xff"}}', "the engine answered with status 418"),
        (b"[" * 50_000, "the engine answered with status 418"),
        (b"", "the engine answered with status 418"),
    ],
)
def test_what_an_engine_says_of_its_error_is_read(body: bytes, message: str) -> None:
    assert answer.error_from_body(418, body).message == message


def test_a_full_queue_is_said_as_too_many_requests() -> None:
    found = answer.error_response(QueueFullError("full", retry_after_s=5), close=False)
    assert found.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    for text in (b'"queue_full"', b'"rate_limit_error"', b"retry-after: 5"):
        assert text in found
