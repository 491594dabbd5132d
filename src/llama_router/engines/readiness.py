"""Asking an engine's health endpoint."""

import asyncio
import re
from typing import cast
from urllib.parse import quote

# Between probes: soon at first, because small engines are up within 20 ms; then not so often that
# it costs anything.
FIRST_DELAY_S = 0.005
LAST_DELAY_S = 0.05
DELAY_FACTOR = 1.6

# A health endpoint answers at once or is of no use yet.
PROBE_TIMEOUT_S = 1.0

# The status line is all that is needed; whoever sends this much before its end is no HTTP server.
MAX_STATUS_LINE_BYTES = 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")


class _Probe(asyncio.Protocol):
    """Sends the request and reads as far as the status line."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._head = b""
        self.status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._head += data[:MAX_STATUS_LINE_BYTES]
        if found := _STATUS_LINE.match(self._head):
            self._settle(int(found[1]))
        elif len(self._head) >= MAX_STATUS_LINE_BYTES or b"\n" in self._head:
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._settle(None)

    def _settle(self, status: int | None) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def is_healthy(host: str, port: int, path: str) -> bool:
    """Return whether ``GET path`` is answered with status 200 within a second.

    Without a path it is enough that the port accepts a connection.
    """
    address = f"[{host}]" if ":" in host else host
    request = (
        b""
        if not path
        else (
            f"GET {quote(path, safe=_SAFE)} HTTP/1.1\r\nHost: {address}:{port}\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode("ascii")
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            transport, probe = await loop.create_connection(lambda: _Probe(request), host, port)
            try:
                return not path or await probe.status == _OK
            finally:
                transport.abort()
    except (OSError, TimeoutError):
        return False


_OK = 200

# RFC 3986, 3.3 and 3.4, and the escapes that are there already.
_SAFE = "/?:@!$&'()*+,;=-._~%"
