"""The engines that the suite runs over: all launched as the router launches them."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from llama_router.catalog.tiny import write_model
from llama_router.engines.kinds import CommandTemplate, ModelFacts, build_launch
from llama_router.engines.launch import LaunchSpec
from tests.conformance.harness import RunningEngine, running
from tests.support import tools
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import free_port

Launch = Callable[..., LaunchSpec]

COMMAND = ("llama-server", "--jinja", "--no-warmup", "--model", "$path", "--host", "$host")


@pytest.fixture(
    params=[
        "fake",
        pytest.param("embedded", marks=pytest.mark.embedded),
        pytest.param("llama_server", marks=pytest.mark.llama_server),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with ``fox.gguf`` and ``endless.gguf``."""
    directory = tmp_path_factory.mktemp("models")
    write_model(directory / "fox.gguf", "The quick brown fox jumps over the lazy dog.", name="fox")
    write_model(
        directory / "endless.gguf", "Round and round it goes.", name="endless", endless=True
    )
    return directory


@pytest_asyncio.fixture
async def launch(kind: str, models: Path, tmp_path: Path) -> AsyncIterator[Launch]:
    """Give a function that makes the launch of a model; ``fake_flags`` go to fake engines only."""
    async with FakeEngines() as fakes:

        def make(
            *flags: str, model: str = "fox", port: int = 0, fake_flags: tuple[str, ...] = ()
        ) -> LaunchSpec:
            found: Path | None = None
            if kind == "fake":
                found = fakes.install(tmp_path, *fake_flags)
            elif kind == "llama_server":
                found = tools.llama_server_path()
            else:
                tools.need_embedded()
            return build_launch(
                CommandTemplate(command=(*COMMAND, "--port", "$port", *flags)),
                ModelFacts(id=model, path=models / f"{model}.gguf"),
                generation=1,
                host="127.0.0.1",
                port=port or free_port(),
                base_env=os.environ,
                found_llama_server=found,
            )

        yield make


@pytest_asyncio.fixture
async def engine(launch: Launch) -> AsyncIterator[RunningEngine]:
    """Give an engine that is ready."""
    async with running(launch()) as engine:
        await engine.states(until="ready")
        yield engine
