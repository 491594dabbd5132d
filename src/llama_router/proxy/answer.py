"""The client's side of an answer: its head, its framing, and how errors end it."""

import math
from collections.abc import Callable
from enum import Enum

import msgspec

from llama_router.dialects import openai
from llama_router.proxy.chunked import LAST_CHUNK, encode_chunk
from llama_router.proxy.errors import BadUpstreamError, RequestError
from llama_router.proxy.head import RequestHead, ResponseHead

_REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    508: b"Loop Detected",
}
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\n"
)
_HEARTBEAT = b": waiting\n\n"
_PROBE = b":\n\n"


class _ErrorDetail(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


class Framing(Enum):
    """How the client is told where the body ends."""

    NONE = 0
    # The engine's own framing, byte for byte.
    RAW = 1
    # Chunks of ours around what the engine sends.
    CHUNKED = 2
    # The end of the connection.
    CLOSE = 3


# Looking a member up by name costs many times the comparison, and each answer does it often.
NO_BODY, RAW, CHUNKED, CLOSE = Framing


def error_response(error: RequestError, *, close: bool, head_only: bool = False) -> bytes:
    """Return a whole answer that carries ``error``."""
    body = openai.error_body(
        error.message, error_type=error.error_type, code=error.code, param=error.param
    )
    parts = [
        b"HTTP/1.1 %d %b\r\n" % (error.status, _REASONS[error.status]),
        b"content-type: application/json\r\n",
        b"content-length: %d\r\n" % len(body),
    ]
    if error.retry_after_s is not None:
        parts.append(b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after_s)))
    if error.should_retry is not None:
        # The official SDKs retry 408, 409, 429 and 5xx unless this says otherwise.
        parts.append(b"x-should-retry: %b\r\n" % (b"true" if error.should_retry else b"false"))
    if error.status == 401:  # noqa: PLR2004
        parts.append(b"www-authenticate: Bearer\r\n")
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    if not head_only:
        parts.append(body)
    return b"".join(parts)


def choose_framing(request: RequestHead, head: ResponseHead) -> Framing:
    """Return how ``head``'s body can be passed on to this client."""
    if request.method == b"HEAD" or head.status in (204, 304):
        return NO_BODY
    if head.content_length is not None:
        return RAW
    if request.http_1_0:
        return CLOSE
    return RAW if head.chunked else CHUNKED


def head_end(
    request: RequestHead, content_length: int | None, framing: Framing, *, close: bool
) -> bytes:
    """Return the last lines of an answer's head: how its body ends, and the connection."""
    if content_length is not None:
        lines = b"content-length: %d\r\n" % content_length
    elif framing is CHUNKED or framing is RAW:
        lines = b"transfer-encoding: chunked\r\n"
    else:
        lines = b""
    if close:
        lines += b"connection: close\r\n"
    elif request.http_1_0:
        lines += b"connection: keep-alive\r\n"
    return lines + b"\r\n"


def stream_head(request: RequestHead, *, close: bool) -> tuple[bytes, Framing]:
    """Return the head of an event stream that the router itself begins."""
    if request.http_1_0:
        return _SSE_HEAD + b"connection: close\r\n\r\n", CLOSE
    lines = b"transfer-encoding: chunked\r\n" + (b"connection: close\r\n" if close else b"")
    return _SSE_HEAD + lines + b"\r\n", CHUNKED


def framed(data: bytes, framing: Framing) -> bytes:
    """Return body bytes of the router's own, framed for a stream that it has begun."""
    return data if framing is CLOSE else encode_chunk(data)


def in_chunks(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return what relays content in chunks of the router's own."""

    def relay(data: bytes) -> None:
        if data:
            write(encode_chunk(data))

    return relay


def heartbeat(framing: Framing) -> bytes:
    """Return a comment that keeps a waiting stream from being taken for dead."""
    return framed(_HEARTBEAT, framing)


def probe(framing: Framing) -> bytes:
    """Return a comment that makes a client which has gone say so."""
    return framed(_PROBE, framing)


def error_event(error: RequestError, framing: Framing) -> bytes:
    """Return one event that carries ``error``."""
    event = openai.sse_error(error.message, error_type=error.error_type, code=error.code)
    return framed(event, framing)


def end_of(framing: Framing) -> bytes:
    """Return what ends a body that the router frames."""
    return LAST_CHUNK if framing is CHUNKED else b""


def error_from_body(status: int, body: bytes) -> RequestError:
    """Return what an engine's error answer says, for a stream that can only carry events."""
    try:
        message = msgspec.json.decode(body, type=_ErrorBody).error.message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    if not message and status == 200:  # noqa: PLR2004
        message = "the engine did not stream its answer, which cannot follow on notices"
    return BadUpstreamError(message or f"the engine answered with status {status}")
