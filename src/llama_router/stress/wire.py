"""A raw HTTP client that hides nothing: what came, and how it ended."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

_HEAD_MAX_BYTES = 64 * 1024
# Of one answer; the endless fault is left then.
BODY_MAX_BYTES = 2 * 1024 * 1024
_SLOW_PIECE_BYTES = 4096
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# RFC 9110, 15.3.5 and 15.4.5.
_BODILESS_STATUSES = frozenset({204, 304})


class AnswerEnd(Enum):
    """How an answer ended."""

    # As its framing says.
    WHOLE = "whole"
    # In the middle of it.
    CUT = "cut"
    # Before its first byte.
    NONE = "none"
    # This side had enough.
    LEFT = "left"


@dataclass(slots=True)
class Answer:
    """``body`` without its framing. ``wait_s``: until the first byte."""

    end: AnswerEnd
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait_s: float = 0.0


class Client:
    """One connection. ``pace_s``: pause after each few KiB of an answer, as a slow reader does."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pace_s = pace_s
        self._unpaced_bytes = 0

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """Send a request and read its answer; raises nothing for what the other side does."""
        started_s = time.monotonic()
        answer = Answer(AnswerEnd.NONE)
        try:
            self._writer.write(request_bytes(method, path, body, headers))
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.LimitOverrunError):
            return answer
        except asyncio.IncompleteReadError as error:
            answer.end = AnswerEnd.CUT if error.partial else AnswerEnd.NONE
            return answer
        answer.wait_s = time.monotonic() - started_s
        answer.end = AnswerEnd.CUT
        pieces: list[bytes] = []
        try:
            answer.status, answer.headers = _parse_head(head)
            await self._read_body(answer, pieces)
        except (OSError, ValueError, asyncio.LimitOverrunError):
            pass
        except asyncio.IncompleteReadError as error:
            pieces.append(error.partial)
        answer.body = b"".join(pieces)
        return answer

    async def _read_body(self, answer: Answer, pieces: list[bytes]) -> None:
        if answer.status in _BODILESS_STATUSES:
            pass
        elif answer.headers.get("transfer-encoding") == "chunked":
            size = 0
            while length := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._read(length, pieces)
                await self._reader.readexactly(2)
                size += length
                if size > BODY_MAX_BYTES:
                    answer.end = AnswerEnd.LEFT
                    return
            await self._reader.readuntil(b"\r\n")
        elif "content-length" in answer.headers:
            await self._read(int(answer.headers["content-length"]), pieces)
        else:
            while piece := await self._reader.read(_SLOW_PIECE_BYTES):
                pieces.append(piece)
        answer.end = AnswerEnd.WHOLE

    async def _read(self, count: int, pieces: list[bytes]) -> None:
        while count:
            piece = await self._reader.readexactly(min(count, _SLOW_PIECE_BYTES))
            pieces.append(piece)
            count -= len(piece)
            self._unpaced_bytes += len(piece)
            if self._pace_s and self._unpaced_bytes >= _SLOW_PIECE_BYTES:
                self._unpaced_bytes = 0
                await asyncio.sleep(self._pace_s)

    async def send_part(self, data: bytes) -> None:
        """Send bytes as they are."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def abort(self) -> None:
        """Close without farewell."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close, and wait until it is closed."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(port: int, *, pace_s: float = 0.0) -> Client:
    """Connect to the router. Raises OSError."""
    limit = _SLOW_PIECE_BYTES * 4 if pace_s else _HEAD_MAX_BYTES
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    return Client(reader, writer, pace_s)


def request_bytes(
    method: str, path: str, body: object = None, headers: Mapping[str, str] = NO_HEADERS
) -> bytes:
    """Return a request as it goes over the wire."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if data:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}\r\n".encode() + data


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip().lower()
    return int(first.split(" ")[1]), headers
