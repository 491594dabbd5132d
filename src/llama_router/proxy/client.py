"""A client as an exchange sees it."""

import asyncio
from typing import Protocol


class Client(Protocol):
    """The connection that a request came by."""

    transport: asyncio.Transport

    @property
    def is_blocked(self) -> bool:
        """Whether the client does not take what is written to it."""

    @property
    def wants_close(self) -> bool:
        """Whether this is the connection's last answer."""

    def exchange_done(self, *, close: bool, abort: bool = False) -> None:
        """The answer has been written."""
