"""Finding the addresses of names, for the hub's session."""

import socket
from collections.abc import Iterable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from llama_router.hub.addresses import Addresses, is_private


class CarefulResolver(AbstractResolver):
    """Finds addresses; of hosts that are not the endpoint, public ones only.

    ``proxy_hosts`` are asked in the endpoint's place, wherever they are.
    """

    def __init__(self, addresses: Addresses, proxy_hosts: Iterable[str] = ()) -> None:
        self._addresses = addresses
        self._proxy_hosts = frozenset(proxy_hosts)
        self._inner: ThreadedResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses that may be connected to. Raises OSError."""
        if self._inner is None:
            self._inner = ThreadedResolver()
        found: list[Any] = await self._inner.resolve(host, port, family)
        if self._addresses.may_be_private(host) or host in self._proxy_hosts:
            return found
        public = [one for one in found if not is_private(one["host"])]
        if found and not public:
            raise OSError(None, f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Let go of what it holds."""
        if self._inner is not None:
            await self._inner.close()
