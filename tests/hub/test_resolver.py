import socket
from typing import Any

import pytest

from llama_router.hub.addresses import Addresses
from llama_router.hub.resolver import CarefulResolver


@pytest.mark.asyncio
async def test_names_that_lead_into_this_network_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def getaddrinfo(*_args: object, **_more: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = CarefulResolver(Addresses("https://hub.internal"), ["proxy.internal"])
    with pytest.raises(OSError, match="no public address"):
        await resolver.resolve("cdn.hf.co", 443)
    assert await resolver.resolve("hub.internal", 443)
    assert await resolver.resolve("proxy.internal", 443)
    await resolver.close()
