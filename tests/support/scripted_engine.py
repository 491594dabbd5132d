"""An engine whose every byte a test writes: raw connections on loopback, accepted one by one.

With ``answer`` it serves itself: each request gets those bytes. With ``tls`` it is encrypted.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import NamedTuple, Self

_RESET = struct.pack("ii", 1, 0)
_LIMIT_BYTES = 2**20


def answer(body: bytes = b"{}", *, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status,
        fields,
        len(body),
        body,
    )


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def event(text: bytes) -> bytes:
    """One server-sent event in a chunk of its own."""
    data = b"data: " + text + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


class EngineRequest(NamedTuple):
    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def fields(self) -> dict[bytes, bytes]:
        lines = self.head.split(b"\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


class EngineSide:
    """The engine's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def request(self) -> EngineRequest:
        head = await self.head()
        length = EngineRequest(head, b"").fields.get(b"content-length", b"0")
        return EngineRequest(head, await self.reader.readexactly(int(length)))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def closed(self) -> bytes:
        """Wait until the router has closed; give what it still sent."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                data += piece
        return data


class ScriptedEngine:
    """Listens while its context lasts."""

    def __init__(self, answer: bytes | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self._tls = tls
        self.connection_count = 0
        self.requests: list[EngineRequest] = []
        self.port = 0
        self._accepted: asyncio.Queue[EngineSide] = asyncio.Queue()
        self._sides: list[EngineSide] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._on_connection, "127.0.0.1", 0, limit=_LIMIT_BYTES, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for side in self._sides:
            side.writer.transport.abort()
            with contextlib.suppress(OSError):
                await side.writer.wait_closed()
        if self._server is not None:
            await self._server.wait_closed()

    async def accept(self) -> EngineSide:
        """Give the next connection that the router opens."""
        return await self._accepted.get()

    async def begin(self) -> EngineSide:
        """Give the next connection with its request already read."""
        side = await self.accept()
        self.requests.append(await side.request())
        return side

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connection_count += 1
        side = EngineSide(reader, writer)
        self._sides.append(side)
        if self.answer is None:
            self._accepted.put_nowait(side)
            return
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.requests.append(await side.request())
                await side.send(self.answer)
