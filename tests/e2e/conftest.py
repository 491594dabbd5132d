"""Whole routers over fake engines."""

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import RouterProcess, launched, write_config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(
                pytest.mark.skipif(sys.platform != "linux", reason="uses pidfds and /proc")
            )


@pytest_asyncio.fixture
async def fakes() -> AsyncIterator[FakeEngines]:
    async with FakeEngines() as engines:
        yield engines


class StartRouter(Protocol):
    """Start a router over ``models``, each run by a fake engine with ``flags``.

    ``as_llama_server``: by the default command, which finds a fake llama-server on PATH.
    """

    async def __call__(
        self,
        *flags: str,
        models: Mapping[str, Mapping[str, Any]] | tuple[str, ...] = ("alpha", "beta"),
        router: Mapping[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        is_clean: bool = True,
        await_banner: bool = True,
        prelude: str = "",
        as_llama_server: bool = False,
        **rest: object,
    ) -> RouterProcess: ...


@pytest_asyncio.fixture
async def start_router(tmp_path: Path, fakes: FakeEngines) -> AsyncIterator[StartRouter]:
    """Give a function that starts routers; they are ended in reverse order."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *flags: str,
            models: Mapping[str, Mapping[str, Any]] | tuple[str, ...] = ("alpha", "beta"),
            router: Mapping[str, Any] | None = None,
            arguments: tuple[str, ...] = (),
            env: Mapping[str, str] | None = None,
            is_clean: bool = True,
            await_banner: bool = True,
            prelude: str = "",
            as_llama_server: bool = False,
            **rest: object,
        ) -> RouterProcess:
            port = port_window()
            entries = models if isinstance(models, Mapping) else {name: {} for name in models}
            if as_llama_server:
                programs = fakes.install(tmp_path, *flags).parent
                env = {"PATH": f"{programs}:/usr/bin:/bin", **(env or {})}
            config = write_config(
                tmp_path,
                command=None if as_llama_server else fakes.command(*flags),
                models=entries,
                router={"base_port": port + 1, "shutdown_deadline_s": 2, **(router or {})},
                **rest,
            )
            running = await stack.enter_async_context(
                launched(
                    tmp_path,
                    config,
                    *arguments,
                    port=port,
                    env=env,
                    is_clean=is_clean,
                    prelude=prelude,
                )
            )
            if await_banner:
                await running.listening()
            return running

        yield start
