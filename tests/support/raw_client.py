"""A client that sends what it is told, byte for byte, and reads one answer at a time."""

import asyncio
import contextlib
import socket
import struct
from typing import NamedTuple

from llama_router.proxy.chunked import ChunkedScanner

_LIMIT_BYTES = 2**22


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes

    @property
    def fields(self) -> dict[bytes, bytes]:
        lines = self.head.split(b"\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


class RawClient:
    """One connection to the router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_buffer_bytes: int = 0) -> "RawClient":
        sock = socket.socket()
        try:
            if receive_buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=_LIMIT_BYTES)
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    def pause(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a stream's

    def resume(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def head(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one whole answer. Raises IncompleteReadError when it breaks off."""
        head = await self.head()
        status = int(head.split(b" ", 2)[1])
        fields = Answer(status, head, b"").fields
        if to_head or status in (204, 304):
            return Answer(status, head, b"")
        if b"content-length" in fields:
            body = await self.reader.readexactly(int(fields[b"content-length"]))
        elif fields.get(b"transfer-encoding") == b"chunked":
            body = await self._chunked()
        else:
            body = await self.reader.read()
        return Answer(status, head, body)

    async def rest(self) -> bytes:
        """Read until the router closes. Raises ConnectionResetError when it breaks off."""
        return await self.reader.read()

    async def _chunked(self) -> bytes:
        pieces: list[bytes] = []
        scanner = ChunkedScanner()
        raw = b""
        while True:
            # To the end of a line, and no further: what follows is the next answer's.
            line = await self.reader.readuntil(b"\r\n")
            raw += line
            if scanner.scan(line, pieces) >= 0:
                return b"".join(pieces)
