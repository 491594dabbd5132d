import h11
import pytest

from llama_router.proxy.errors import MalformedRequestError
from llama_router.proxy.head import ResponseHeadError, parse_request_head, parse_response_head
from llama_router.proxy.limits import MAX_HEADER_COUNT, MAX_TARGET_BYTES

HOST = b"Host: a\r\n"


def request(fields: bytes = b"", *, line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n"


# Name: status, bytes. llhttp, as httptools sets it, takes those of the second table.
LLHTTP_REFUSES = {
    "empty": (505, b"\r\n\r\n"),
    "one word": (400, b"GET\r\n\r\n"),
    "lower-case method": (400, request(line=b"get / HTTP/1.1")),
    "made-up method": (400, request(line=b"BREW / HTTP/1.1")),
    "no space in the version": (400, request(line=b"GET / HTTP /1.1")),
    "another protocol": (400, request(line=b"GET / HTTQ/1.1")),
    "tab in the line": (400, request(line=b"GET\t/ HTTP/1.1")),
    "NUL in the target": (400, request(line=b"GET /\0 HTTP/1.1")),
    "NUL in a value": (400, request(b"a: b\0c\r\n")),
    "CR in a value": (400, request(b"a: b\rc: d\r\n")),
    "bare LF": (400, request(b"a: b\nc: d\r\n")),
    "space before the colon": (400, request(b"a : b\r\n")),
    "space in a name": (400, request(b"a b: c\r\n")),
    "no colon": (400, request(b"abc\r\n")),
    "no name": (400, request(b": abc\r\n")),
    "folded": (400, request(b"a: b\r\n c\r\n")),
    "high byte in a name": (400, request(b"\xe4: b\r\n")),
    "length and chunked": (400, request(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
    "chunked and length": (400, request(b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n")),
    "equal lengths": (400, request(b"Content-Length: 1\r\nContent-Length: 1\r\n")),
    "list of lengths": (400, request(b"Content-Length: 1, 1\r\n")),
    "plus": (400, request(b"Content-Length: +1\r\n")),
    "minus": (400, request(b"Content-Length: -1\r\n")),
    "underscore": (400, request(b"Content-Length: 1_0\r\n")),
    "hexadecimal": (400, request(b"Content-Length: 0x1\r\n")),
    "no number": (400, request(b"Content-Length: \r\n")),
    "beyond 64 bits": (400, request(b"Content-Length: 18446744073709551616\r\n")),
    "chunked twice": (400, request(b"Transfer-Encoding: chunked, chunked\r\n")),
    "coding after chunked": (400, request(b"Transfer-Encoding: chunked, identity\r\n")),
}
LLHTTP_TAKES = {
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/2.0": (505, request(line=b"GET / HTTP/2.0")),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, request(HOST)),
    "two hosts of HTTP/1.0": (400, request(HOST, line=b"GET / HTTP/1.0")),
    "coding in HTTP/1.0": (400, request(b"Transfer-Encoding: chunked\r\n", line=b"GET / HTTP/1.0")),
    "empty coding": (501, request(b"Transfer-Encoding: ,chunked\r\n")),
    "coding before chunked": (501, request(b"Transfer-Encoding: gzip, chunked\r\n")),
    "absolute target": (400, request(line=b"GET http://a/ HTTP/1.1")),
    "star": (400, request(line=b"GET * HTTP/1.1")),
    "fragment": (400, request(line=b"GET /a#b HTTP/1.1")),
    "connect": (501, request(line=b"CONNECT a:1 HTTP/1.1")),
    "long target": (414, request(line=b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1")),
    "many fields": (431, request(b"a: b\r\n" * MAX_HEADER_COUNT)),
}
HOSTILE = LLHTTP_REFUSES | LLHTTP_TAKES


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_heads_are_refused(name: str) -> None:
    status, data = HOSTILE[name]
    with pytest.raises(MalformedRequestError) as caught:
        parse_request_head(data)
    assert caught.value.closes
    # An earlier refusal by llhttp is as good as ours.
    assert caught.value.status in (status, 400)


def h11_takes(data: bytes) -> bool:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(data)
    try:
        return isinstance(connection.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


# What another careful parser takes and this one does not; whoever changes a line of this list
# should know why.
ONLY_H11_TAKES = {
    # The coding wins over the length, or equal lengths are one (RFC 9112 lets a proxy do so).
    "length and chunked",
    "chunked and length",
    "equal lengths",
    "list of lengths",
    # Old forms that RFC 9112 lets a server overlook.
    "bare LF",
    "folded",
    # Names of methods and forms of targets that no reverse proxy has a use for.
    "lower-case method",
    "made-up method",
    "absolute target",
    "star",
    "fragment",
    "connect",
    # Versions are not h11's affair.
    "HTTP/2.0",
    "coding in HTTP/1.0",
    # Bounds.
    "beyond 64 bits",
    "long target",
    "many fields",
}


def test_the_list_of_disagreements_with_h11_is_complete() -> None:
    assert {name for name, (_, data) in HOSTILE.items() if h11_takes(data)} == ONLY_H11_TAKES


def test_an_ordinary_head_is_read() -> None:
    head = parse_request_head(
        b"POST /v1/x?a=b HTTP/1.1\r\nHOST: a:1\r\nX-Y:  z \r\nContent-Length: 12\r\n"
        b"Expect: 100-Continue\r\n\r\n"
    )
    assert (head.method, head.path, head.query) == (b"POST", b"/v1/x", b"a=b")
    assert (head.host, head.content_length, head.chunked) == (b"a:1", 12, False)
    assert (head.get(b"x-y"), head.get(b"x-z"), head.expect) == (b"z", None, b"100-continue")
    assert head.keep_alive
    assert not head.http_1_0


@pytest.mark.parametrize(
    ("line", "fields", "keeps"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: x, Close\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_goes_on_is_read(line: bytes, fields: bytes, *, keeps: bool) -> None:
    assert parse_request_head(request(fields, line=line)).keep_alive is keeps


def test_an_upgrade_is_overlooked() -> None:
    head = parse_request_head(
        request(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n")
    )
    assert head.content_length == 5


def test_asking_for_the_whole_server_is_allowed() -> None:
    assert parse_request_head(request(line=b"OPTIONS * HTTP/1.1")).path == b"*"


def test_as_many_fields_and_bytes_as_allowed_are_taken() -> None:
    head = parse_request_head(
        request(
            b"a: b\r\n" * (MAX_HEADER_COUNT - 1),
            line=b"GET /" + b"a" * (MAX_TARGET_BYTES - 1) + b" HTTP/1.1",
        )
    )
    assert len(head.headers) == MAX_HEADER_COUNT


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        b"HTTP/1.1 200 O\nK\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_HEADER_COUNT + 1) + b"\r\n",
    ],
)
def test_hostile_answers_are_refused(data: bytes) -> None:
    with pytest.raises(ResponseHeadError):
        parse_response_head(data)


def test_an_ordinary_answer_is_read() -> None:
    head = parse_response_head(
        b"HTTP/1.1 206 Some Of It\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Transfer-Encoding: Chunked\r\n\r\n"
    )
    assert (head.status, head.reason, head.keep_alive) == (206, b"Some Of It", True)
    assert (head.chunked, head.content_length, head.is_event_stream) == (True, None, True)
    old = parse_response_head(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n")
    assert not old.keep_alive


def test_events_that_are_compressed_are_events_but_leave_no_room_for_another() -> None:
    line = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    plain = parse_response_head(line + b"\r\n")
    packed = parse_response_head(line + b"Content-Encoding: gzip\r\n\r\n")
    assert (plain.is_event_stream, plain.takes_events) == (True, True)
    assert (packed.is_event_stream, packed.takes_events) == (True, False)
