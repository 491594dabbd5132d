"""Heads of requests and responses: parsed by llhttp (through httptools), then held to more.

llhttp in its strict default already refuses ambiguous framing (Content-Length with
Transfer-Encoding, duplicates of either), bare line feeds, folded lines and control characters. What
it lets pass and a proxy must not is refused here: RFC 9112, sections 3.2, 5, 6 and 9.
"""

from typing import NoReturn

import httptools
import msgspec

from llama_router.proxy.errors import (
    HeadTooLargeError,
    HttpVersionError,
    MalformedRequestError,
    NotImplementedMethodError,
    TargetTooLongError,
)
from llama_router.proxy.limits import MAX_HEADER_COUNT, MAX_TARGET_BYTES

Headers = list[tuple[bytes, bytes]]

# Fields that speak of one connection only (RFC 9110, section 7.6.1), and those that a router must
# not take over from a client: forwarding fields could be forged, proxy fields are not for engines.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)


class ResponseHeadError(ValueError):
    """The head of an engine's answer cannot be trusted."""


class RequestHead:
    """The head of one request, valid as far as HTTP goes.

    Names of fields are lower case. ``content_length`` is None when the body is chunked or absent.
    """

    __slots__ = (
        "chunked",
        "content_length",
        "expect",
        "headers",
        "host",
        "http_1_0",
        "keep_alive",
        "method",
        "path",
        "query",
        "target",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = b""
        self.query = b""
        self.headers: Headers = []
        self.host = b""
        self.content_length: int | None = None
        self.chunked = False
        self.expect = b""
        self.keep_alive = True
        self.http_1_0 = False

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a field (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class _RequestCallbacks:
    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def parse_request_head(data: bytes) -> RequestHead:
    """Parse ``data``, which ends with the empty line behind a head.

    Raises a kind of MalformedRequestError for whatever is not one clear request.
    """
    callbacks = _RequestCallbacks()
    parser = httptools.HttpRequestParser(callbacks)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # CONNECT, or an Upgrade field. The former is refused below; the latter is not taken up:
        # the request is an ordinary one (RFC 9110, section 7.8).
        pass
    except httptools.HttpParserError as error:
        _refuse_garbage(data, error)
    head = RequestHead()
    head.method = parser.get_method()
    head.target = callbacks.target
    head.headers = callbacks.headers
    version = parser.get_http_version()
    if version != "1.1":
        if version != "1.0":
            raise HttpVersionError(f"HTTP/{version} is not supported; use HTTP/1.1")
        head.http_1_0 = True
    _check_target(head)
    _read_fields(head)
    head.keep_alive = _keeps_alive(head.headers, by_default=not head.http_1_0)
    return head


def _keeps_alive(headers: Headers, *, by_default: bool) -> bool:
    """Tell whether the connection outlasts the message (RFC 9112, section 9.3).

    llhttp cannot be asked: it has forgotten the fields once a message without a body is whole.
    """
    options = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return b"close" not in options and (by_default or b"keep-alive" in options)


def _refuse_garbage(data: bytes, error: Exception) -> NoReturn:
    line = data.split(b"\r\n", 1)[0]
    if len(line) > MAX_TARGET_BYTES:
        raise TargetTooLongError("the request line is too long") from None
    if line.startswith(b"PRI * HTTP/2"):
        raise HttpVersionError("HTTP/2 is not supported; use HTTP/1.1") from None
    raise MalformedRequestError(f"this is not a valid HTTP request: {error}") from None


def _check_target(head: RequestHead) -> None:
    target = head.target
    if len(target) > MAX_TARGET_BYTES:
        raise TargetTooLongError(f"the request target is longer than {MAX_TARGET_BYTES} bytes")
    if head.method == b"CONNECT":
        raise NotImplementedMethodError("CONNECT is not supported: this is no forward proxy")
    if not target.startswith(b"/"):
        if target == b"*" and head.method == b"OPTIONS":
            head.path = target
            return
        raise MalformedRequestError("the request target must begin with '/'")
    # A fragment never goes over the wire; what follows one would be read in two ways.
    if b"#" in target:
        raise MalformedRequestError("the request target contains '#'")
    head.path, _, head.query = target.partition(b"?")


def _read_fields(head: RequestHead) -> None:
    headers = head.headers
    if len(headers) > MAX_HEADER_COUNT:
        raise HeadTooLargeError(f"more than {MAX_HEADER_COUNT} header fields")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            head.host = value
        elif name == b"content-length":
            # llhttp has checked that it is one number; a second field it has refused.
            head.content_length = int(value)
        elif name == b"transfer-encoding":
            _read_transfer_coding(head, value)
        elif name == b"expect":
            head.expect = value.lower()
    if hosts != 1 and not (hosts == 0 and head.http_1_0):
        raise MalformedRequestError(f"{hosts} Host fields in one request; there must be one")
    if head.chunked and head.content_length is not None:
        raise MalformedRequestError("both Content-Length and Transfer-Encoding")


def _read_transfer_coding(head: RequestHead, value: bytes) -> None:
    if head.http_1_0:
        raise MalformedRequestError("Transfer-Encoding is not part of HTTP/1.0")
    if value.lower() != b"chunked" or head.chunked:
        raise NotImplementedMethodError("the only transfer coding taken is 'chunked'")
    head.chunked = True


class ResponseHead(msgspec.Struct):
    """The head of one answer of an engine, valid as far as HTTP goes.

    ``content_length`` is None when the body is chunked or ends with the connection.
    ``takes_events``: it is an event stream in the plain, so an event of one's own can be put in.
    """

    status: int
    reason: bytes
    headers: Headers
    keep_alive: bool
    content_length: int | None = None
    chunked: bool = False
    is_event_stream: bool = False
    takes_events: bool = False


class _ResponseCallbacks:
    __slots__ = ("headers", "reason")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.reason = b""

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def parse_response_head(data: bytes) -> ResponseHead:
    """Parse ``data``, which ends with the empty line behind a head.

    Raises ResponseHeadError for whatever is not one clear answer.
    """
    callbacks = _ResponseCallbacks()
    parser = httptools.HttpResponseParser(callbacks)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise ResponseHeadError("the engine wants to switch protocols") from None
    except httptools.HttpParserError as error:
        raise ResponseHeadError(f"not valid HTTP: {error}") from None
    headers = callbacks.headers
    if len(headers) > MAX_HEADER_COUNT:
        raise ResponseHeadError(f"more than {MAX_HEADER_COUNT} header fields")
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise ResponseHeadError(f"HTTP/{version} answered to HTTP/1.1")
    head = ResponseHead(
        status=parser.get_status_code(),
        reason=callbacks.reason,
        headers=headers,
        keep_alive=version == "1.1" and _keeps_alive(headers, by_default=True),
    )
    _read_response_fields(head)
    if head.chunked and head.content_length is not None:
        raise ResponseHeadError("both Content-Length and Transfer-Encoding")
    return head


def _read_response_fields(head: ResponseHead) -> None:
    is_encoded = False
    for name, value in head.headers:
        if name == b"content-length":
            if head.content_length is not None or not value.isdigit():
                raise ResponseHeadError("more than one Content-Length, or not a number")
            head.content_length = int(value)
        elif name == b"transfer-encoding":
            if head.chunked or value.lower() != b"chunked":
                raise ResponseHeadError("a transfer coding other than 'chunked'")
            head.chunked = True
        elif name == b"content-type":
            head.is_event_stream = value.startswith(b"text/event-stream")
        elif name == b"content-encoding":
            is_encoded = True
    head.takes_events = head.is_event_stream and not is_encoded
