"""Encryption towards servers on other machines: the system's trust store, always checked."""

import asyncio
import ssl
from collections.abc import Callable


class Tls:
    """Makes one context for all connections, when the first is opened, outside the event loop.

    Reading the trust store takes some tens of milliseconds.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> None:
        self._make = make
        self._making: asyncio.Task[ssl.SSLContext] | None = None

    async def context(self) -> ssl.SSLContext:
        """Return it. Raises OSError."""
        making = self._making
        if making is None or (making.done() and making.exception() is not None):
            making = asyncio.create_task(asyncio.to_thread(self._prepared), name="make TLS context")
            self._making = making
        # Whoever asked may leave meanwhile; it is then there for the next one.
        return await asyncio.shield(making)

    def _prepared(self) -> ssl.SSLContext:
        context = self._make()
        # Without this a server could choose HTTP/2.
        context.set_alpn_protocols(["http/1.1"])
        return context
