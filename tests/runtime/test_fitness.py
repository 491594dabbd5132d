from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.hub.choice import Contents, RepoFile, contents_of
from llama_router.hub.errors import HubError
from llama_router.runtime.fitness import HubFitness

GIB = 2**30
BIG = 8 * GIB


def repo(*files: tuple[str, int]) -> Contents:
    return contents_of("o/r", "c" * 40, [RepoFile(path, size, "a" * 64) for path, size in files])


class Headers:
    """Gives a tiny model's header for any file."""

    def __init__(self, made: Path) -> None:
        write_model(made, "hello", name="tiny")
        self._data = made.read_bytes()
        self.asked: list[str] = []
        self.error: HubError | None = None

    async def __call__(self, _repo: str, _commit: str, path: str, to: Path, size: int) -> int:
        self.asked.append(path)
        if self.error is not None:
            raise self.error
        to.write_bytes(self._data[:size])  # noqa: ASYNC240 - a test's
        return size


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return Headers(tmp_path / "made.gguf")


@pytest.mark.asyncio
async def test_the_weights_are_the_file_s_and_the_rest_the_header_s(headers: Headers) -> None:
    found = repo(("m-Q8_0.gguf", BIG), ("m-Q4_0.gguf", 4 * GIB))
    fitness = HubFitness(lambda: {"cpu": 6 * GIB}, headers)
    large, small = found.variants
    assert (await fitness.judge(found, large))[0] == "no"
    verdict, because = await fitness.judge(found, small)
    assert verdict == "yes"
    assert "4.0 GiB" in because or "4.1 GiB" in because
    assert headers.asked == ["m-Q4_0.gguf"]


@pytest.mark.asyncio
async def test_where_it_would_be_is_said(headers: Headers) -> None:
    found = repo(("m-Q8_0.gguf", BIG))
    for budgets, words in (
        ({"cpu": GIB, "cuda0": 12 * GIB}, "graphics cards have"),
        ({"cpu": 6 * GIB, "cuda0": 6 * GIB}, "beside graphics cards"),
        ({"cpu": 12 * GIB}, "the RAM has"),
        ({"cpu": GIB, "cuda0": GIB}, "models may take 2.0 GiB"),
    ):
        fitness = HubFitness(lambda budgets=budgets: budgets, headers)  # type: ignore[misc]
        _verdict, because = await fitness.judge(found, found.variants[0])
        assert words in because


@pytest.mark.asyncio
async def test_without_a_header_the_size_is_what_is_left_and_that_is_said(
    headers: Headers,
) -> None:
    headers.error = HubError("gated", "no")
    found = repo(("m-Q8_0.gguf", BIG))
    fitness = HubFitness(lambda: {"cpu": 16 * GIB}, headers)
    for _ in range(2):
        verdict, because = await fitness.judge(found, found.variants[0])
        assert verdict == "yes"
        assert "the size of its files alone" in because
    assert len(headers.asked) == 1


@pytest.mark.asyncio
async def test_a_router_that_does_not_look_at_memory_does_not_know(headers: Headers) -> None:
    found = repo(("m-Q8_0.gguf", BIG))
    assert (await HubFitness(dict, headers).judge(found, found.variants[0]))[0] == "unknown"
    assert headers.asked == []
