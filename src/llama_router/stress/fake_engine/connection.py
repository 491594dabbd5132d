"""The fake engine's HTTP/1.1: just enough to read a router's requests and to answer them."""

import contextlib
import json
import socket
from http import HTTPStatus
from typing import NamedTuple

from llama_router.stress.fake_engine.state import Engine

_MAX_HEAD_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
# Idle connections are closed after it (cpp-httplib's CPPHTTPLIB_KEEPALIVE_TIMEOUT_SECOND).
_KEEP_ALIVE_S = 5.0
JSON_TYPE = "application/json; charset=utf-8"


class Hangup(Exception):  # noqa: N818 - not an error: the connection is to be closed now
    """The connection is closed without another byte."""


class Request(NamedTuple):
    """One request, read whole."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """Give the first header of a name in lower case, "" without one."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Connection:
    """One client: reads requests, writes answers."""

    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        self.engine = engine
        self.sock = sock
        self.request: Request | None = None
        self._buffer = bytearray()

    def read_request(self) -> Request:
        """Read the next request whole. Raises Hangup when there is none, OSError."""
        self.sock.settimeout(_KEEP_ALIVE_S)
        head = self._read_until(b"\r\n\r\n")
        self.sock.settimeout(None)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        request = Request(method, target, headers, b"")
        if request.header("expect").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in request.header("transfer-encoding").lower():
            body = self._read_chunked()
        else:
            body = self._read_exactly(int(request.header("content-length") or 0))
        self.request = request._replace(body=body)
        return self.request

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def send_head(self, status: int, headers: dict[str, str], *, version: str = "HTTP/1.1") -> None:
        """Send a status line and headers."""
        reason = HTTPStatus(status).phrase
        lines = [f"{version} {status} {reason}", "Server: llama.cpp"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def send_json(self, value: object, status: int = 200) -> None:
        """Answer with JSON; as llama-server does, errors end the connection."""
        body = json.dumps(value, separators=(",", ":")).encode()
        is_error = status >= HTTPStatus.BAD_REQUEST
        headers = {"Content-Type": JSON_TYPE, "Content-Length": str(len(body))}
        headers |= {"Connection": "close"} if is_error else {"Keep-Alive": "timeout=5, max=100"}
        self.send_head(status, headers)
        if self.request is None or self.request.method != "HEAD":
            self.send(body)
        if is_error:
            raise Hangup

    def send_error(self, status: int, kind: str, message: str) -> None:
        """Answer with an error as llama-server words it."""
        self.send_json({"error": {"code": status, "message": message, "type": kind}}, status)

    def start_stream(self, content_type: str = "text/event-stream") -> None:
        """Begin an answer in chunks."""
        headers = {"X-Accel-Buffering": "no", "Content-Type": content_type}
        self.send_head(200, headers | {"Transfer-Encoding": "chunked"})

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """Send the last chunk."""
        self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """Close by RST instead of FIN."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise Hangup

    def wait_for_close(self) -> None:
        """Read and drop what comes until the client leaves."""
        while self.sock.recv(_READ_BYTES):
            pass

    def _fill(self) -> None:
        data = self.sock.recv(_READ_BYTES)
        if not data:
            raise Hangup
        self._buffer += data

    def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise Hangup
            self._fill()
        data = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return data

    def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _read_chunked(self) -> bytes:
        body = b""
        while size := int(self._read_until(b"\r\n").partition(b";")[0], 16):
            body += self._read_exactly(size)
            self._read_exactly(2)
        while self._read_until(b"\r\n"):
            pass
        return body


def serve_connection(engine: Engine, sock: socket.socket) -> None:
    """Answer the requests of one connection until either side ends it."""
    from llama_router.stress.fake_engine.answers import answer

    connection = Connection(engine, sock)
    # OSError: the client left, or kept the connection idle for too long.
    with contextlib.suppress(Hangup, OSError):
        while True:
            request = connection.read_request()
            answer(connection, request)
            if engine.options.close_idle or request.header("connection").lower() == "close":
                break
    with contextlib.suppress(OSError):
        sock.close()
