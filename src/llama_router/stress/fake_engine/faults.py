"""The fake engine's misbehaviour on the wire, by name.

A fault is armed by ``--fault NAME[:TIMES]``, by the controller, or by one request for itself with
``"fake_fault": "NAME"`` in its JSON body.
"""

import json
from collections.abc import Callable
from typing import Any

from llama_router.stress.fake_engine.connection import JSON_TYPE, Connection, Hangup
from llama_router.stress.fake_engine.offspring import fill_memory
from llama_router.stress.fake_engine.streams import Dialect, cut, token_event

Body = dict[str, Any]
Fault = Callable[[Connection, Body], None]

_HUGE_HEAD_BYTES = 1024 * 1024
_MANY_HEADERS = 10_000
_HUGE_BODY_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_BODY = b'{"object":"chat.completion","choices":[]}'


def _raw(*parts: bytes) -> Fault:
    """Send these bytes and close."""

    def fault(connection: Connection, _body: Body) -> None:
        connection.send(b"".join(parts))
        raise Hangup

    return fault


def _answered(*headers: bytes, body: bytes = _BODY, status: bytes = b"200 OK") -> Fault:
    """Send an answer with exactly these headers and close."""
    return _raw(b"\r\n".join([b"HTTP/1.1 " + status, *headers]), b"\r\n\r\n", body)


def _hang(connection: Connection, _body: Body) -> None:
    connection.wait_for_close()
    raise Hangup


def _hang_in_head(connection: Connection, _body: Body) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
    _hang(connection, {})


def _hang_in_body(connection: Connection, _body: Body) -> None:
    connection.start_stream()
    connection.send_chunk(token_event(connection.engine.model_name, Dialect.CHAT, " hang"))
    _hang(connection, {})


def _reset(connection: Connection, _body: Body) -> None:
    connection.reset()


def _refused(status: int, kind: str) -> Fault:
    def fault(connection: Connection, _body: Body) -> None:
        connection.send_error(status, kind, f"told to answer {status}")

    return fault


def _bodiless(status: int) -> Fault:
    def fault(connection: Connection, _body: Body) -> None:
        connection.send_head(status, {"Keep-Alive": "timeout=5, max=100"})

    return fault


def _cut(where: str, how: str) -> Fault:
    """Say two tokens, then end badly."""

    def fault(connection: Connection, _body: Body) -> None:
        connection.start_stream()
        for text in (" one", " two"):
            connection.send_chunk(token_event(connection.engine.model_name, Dialect.CHAT, text))
        cut(connection, where, how)

    return fault


def _whole_stream(connection: Connection) -> bytes:
    alias, model = connection.engine.alias, connection.engine.model_name
    events = [token_event(model, Dialect.CHAT, text) for text in (f" {alias}", " é", " 你好")]
    return b"".join(events) + b"data: [DONE]\n\n"


def _odd_chunks(connection: Connection, _body: Body) -> None:
    """A right answer in chunks of 1, 2, 3 … bytes, which respect neither events nor characters."""
    connection.start_stream()
    data = _whole_stream(connection)
    size = 1
    while data:
        connection.send_chunk(data[:size])
        data = data[size:]
        size += 1
    connection.end_stream()


def _chunk_extension(connection: Connection, _body: Body) -> None:
    connection.start_stream()
    data = _whole_stream(connection)
    connection.send(b"%x;note=1\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(data), data))


def _until_close(connection: Connection, _body: Body) -> None:
    connection.send_head(200, {"Content-Type": "text/event-stream"}, version="HTTP/1.0")
    connection.send(_whole_stream(connection))
    raise Hangup


def _interim(status: bytes) -> Fault:
    """A right answer after an interim one."""

    def fault(connection: Connection, _body: Body) -> None:
        connection.send(b"HTTP/1.1 " + status + b"\r\nX-Interim: 1\r\n\r\n")
        connection.send_json({"object": "chat.completion", "model": connection.engine.model_name})

    return fault


def _error_in_stream(connection: Connection, _body: Body) -> None:
    connection.start_stream()
    connection.send_chunk(token_event(connection.engine.model_name, Dialect.CHAT, " one"))
    error = {"code": 500, "message": "told to fail in the stream", "type": "server_error"}
    connection.send_chunk(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    connection.end_stream()


def _huge_body(connection: Connection, _body: Body) -> None:
    headers = {"Content-Type": JSON_TYPE, "Content-Length": str(_HUGE_BODY_BYTES)}
    connection.send_head(200, headers)
    for _ in range(_HUGE_BODY_BYTES // _PIECE_BYTES):
        connection.send(b"x" * _PIECE_BYTES)


def _endless(connection: Connection, _body: Body) -> None:
    """Say tokens as fast as they are taken, without end."""
    connection.start_stream()
    event = token_event(connection.engine.model_name, Dialect.CHAT, " more")
    while True:
        connection.send_chunk(event)


def _out_of_memory(connection: Connection, _body: Body) -> None:
    """Run out of memory in the middle of an answer; meant for an engine with a memory limit."""
    connection.start_stream()
    connection.send_chunk(token_event(connection.engine.model_name, Dialect.CHAT, " one"))
    fill_memory()


def _late_answer(connection: Connection, _body: Body) -> None:
    """Send a second answer that nobody asked for after the first."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    connection.send(head + b"{}" + head + b"[]")


_LENGTH = b"Content-Length: %d" % len(_BODY)
_TYPE = b"Content-Type: application/json"

FAULTS: dict[str, Fault] = {
    "hang": _hang,
    "hang-in-head": _hang_in_head,
    "hang-in-body": _hang_in_body,
    "close-first": _raw(),
    "reset-first": _reset,
    "garbage": _raw(b"\x00\x01\x02 this is not HTTP\r\n\r\n"),
    "half-head": _raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "http2-preface": _raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "double-length": _answered(_LENGTH, b"Content-Length: 4"),
    "length-and-chunked": _answered(_LENGTH, b"Transfer-Encoding: chunked"),
    "negative-length": _answered(b"Content-Length: -1"),
    "header-cr": _answered(b"X-Evil: a\rSet-Cookie: stolen=1", _LENGTH),
    "header-lf": _answered(b"X-Evil: a\nSet-Cookie: stolen=1", _LENGTH),
    "header-nul": _answered(b"X-Evil: a\x00b", _LENGTH),
    "header-fold": _answered(b"X-Evil: a\r\n b", _LENGTH),
    "bad-status": _answered(_LENGTH, status=b"abc OK"),
    "status-99": _answered(_LENGTH, status=b"99 Low"),
    "switching": _answered(
        b"Connection: Upgrade", b"Upgrade: x", status=b"101 Switching Protocols"
    ),
    "continue-first": _interim(b"100 Continue"),
    "early-hints": _interim(b"103 Early Hints"),
    "huge-head": _answered(b"X-Huge: " + b"x" * _HUGE_HEAD_BYTES, _LENGTH),
    "many-headers": _answered(*(b"X-%d: 1" % number for number in range(_MANY_HEADERS)), _LENGTH),
    "short-body": _answered(b"Content-Length: 1000", _TYPE),
    "long-body": _answered(b"Content-Length: 10", _TYPE),
    "late-answer": _late_answer,
    "until-close": _until_close,
    "odd-chunks": _odd_chunks,
    "chunk-extension": _chunk_extension,
    "bad-chunk": _answered(b"Transfer-Encoding: chunked", body=b"zz\r\nnot a size\r\n0\r\n\r\n"),
    "no-last-chunk": _cut("event", "close"),
    "cut-half-event": _cut("half_event", "close"),
    "cut-mid-chunk": _cut("mid_chunk", "close"),
    "reset-mid-stream": _cut("event", "reset"),
    "crash-event": _cut("event", "kill"),
    "crash-half-event": _cut("half_event", "kill"),
    "crash-mid-chunk": _cut("mid_chunk", "kill"),
    "out-of-memory": _out_of_memory,
    "error-in-stream": _error_in_stream,
    "status-204": _bodiless(204),
    "status-304": _bodiless(304),
    "status-400": _refused(400, "invalid_request_error"),
    "status-429": _refused(429, "rate_limit_error"),
    "status-500": _refused(500, "server_error"),
    "status-503": _refused(503, "unavailable_error"),
    "plain-500": _answered(
        b"Content-Length: 10", status=b"500 Internal Server Error", body=b"plain text"
    ),
    "html-502": _answered(
        b"Content-Type: text/html", b"Content-Length: 6", status=b"502 Bad Gateway", body=b"<html>"
    ),
    "redirect": _answered(
        b"Location: http://127.0.0.1:9/", b"Content-Length: 0", status=b"302 Found", body=b""
    ),
    "huge-body": _huge_body,
    "endless": _endless,
}
