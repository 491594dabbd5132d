"""Peers of a test: configs of them, and a data plane that knows their models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llama_router.config.schema import Config
from llama_router.config.validate import validate
from llama_router.proxy.tls import Tls
from llama_router.runtime.peers import Peers
from tests.support.certificate import trusting_context
from tests.support.data_plane import DataPlane, data_plane, until


def config_of(**peers: dict[str, Any]) -> Config:
    """A config with these peers."""
    config, _ = validate({"version": "1.0", "peers": peers})
    assert config is not None
    return config


@asynccontextmanager
async def peering(
    *names: str,
    peer: dict[str, Any],
    **settings: Any,  # noqa: ANN401  # those of Services
) -> AsyncIterator[tuple[DataPlane, Peers]]:
    """A data plane to which ``names`` lead to the one peer, called "far"."""
    async with data_plane(**settings) as plane:
        peers = Peers(tls=Tls(trusting_context))
        peers.follow(config_of(far={"models": list(names), **peer}))
        for name in names:
            target = peers.target(name)
            assert target is not None
            plane.gate.targets[name] = target
        try:
            yield plane, peers
            await until(lambda: peers.in_flight_count == 0)
        finally:
            await peers.close()
