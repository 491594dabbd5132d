"""Estimates beside what llama-server takes, after a prompt that fills its context."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_router.catalog.footprint import Footprint, estimate, read_model
from llama_router.catalog.footprint_arguments import parse_arguments
from llama_router.catalog.synthetic import (
    ProjectorShape,
    Shape,
    write_synthetic,
    write_synthetic_projector,
)
from tests.support.measured_server import MeasuredServer, measured_server

pytestmark = [pytest.mark.llama_server, pytest.mark.slow, pytest.mark.timeout(180)]

MIB = 2**20
LEAST_BYTES = 400 * MIB
MOST_OVER = 0.10
MOST_UNDER = 0.05
EMPTY = Shape(layers=1)


@dataclass(frozen=True)
class Case:
    shape: Shape
    arguments: tuple[str, ...]
    prompts: tuple[int, ...]  # tokens of each
    projector: ProjectorShape | None = None


# Reading a prompt costs about as many multiplications as the cache has bytes, for every second
# token: so layers are many and contexts no longer than one core can read in some seconds.
CASES = {
    "several heads share a key": Case(
        Shape(layers=24, heads=16, kv_heads=8, key_length=256), ("-c", "2048"), (2000,)
    ),
    "sliding window": Case(
        Shape(
            architecture="gemma3",
            layers=24,
            heads=16,
            kv_heads=16,
            key_length=256,
            sliding_window=128,
        ),
        ("-c", "2048"),
        (2000,),
    ),
    "sliding window, whole cache": Case(
        Shape(
            architecture="gemma3",
            layers=13,
            heads=16,
            kv_heads=16,
            key_length=256,
            sliding_window=512,
        ),
        ("-c", "2048", "--swa-full"),
        (2000,),
    ),
    "long context and large vocabulary": Case(
        Shape(
            layers=4,
            embedding_length=1024,
            heads=4,
            kv_heads=4,
            key_length=256,
            vocabulary=64_000,
            context_length=8192,
            has_output=False,
        ),
        ("-c", "8192"),
        (8000,),
    ),
    "quantised cache, four slots of their own": Case(
        Shape(layers=12, heads=16, kv_heads=16, key_length=256),
        ("-c", "4096", "-np", "4", "-ctk", "q8_0", "-ctv", "q8_0"),
        (1000, 1000, 1000, 1000),
    ),
    "four slots of their own": Case(
        Shape(architecture="qwen3", layers=14, heads=16, kv_heads=16, key_length=256),
        ("-c", "2048", "-np", "4"),
        (500, 500, 500, 500),
    ),
    "four slots of one cache, all defaults": Case(
        Shape(layers=14, heads=16, kv_heads=16, key_length=256, context_length=2048),
        (),
        (1000, 900),
    ),
    "projector": Case(
        Shape(layers=10, heads=16, kv_heads=16, key_length=256),
        ("-c", "2048"),
        (1200,),
        ProjectorShape(embedding_length=1024, feed_forward_length=4096, heads=16, image_pixels=384),
    ),
    "recurrent state": Case(
        Shape(architecture="mamba", layers=24, embedding_length=1024, state_size=256),
        ("-c", "4096", "-np", "4"),
        (200,),
    ),
}


def estimated(path: Path, arguments: Sequence[str]) -> Footprint:
    launch = parse_arguments(arguments)
    return estimate(read_model(path, launch), launch)


@pytest.fixture(scope="module")
def empty_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What an engine takes that has next to nothing to hold."""
    path = write_synthetic(tmp_path_factory.mktemp("empty") / "empty.gguf", EMPTY)
    with measured_server(path, ["-c", "256"]) as server:
        server.prefill(100)
        return server.resident_bytes()


def run(server: MeasuredServer, case: Case) -> None:
    for tokens in case.prompts:
        if case.projector is not None:
            server.show_picture(case.projector.image_pixels, tokens)
        else:
            server.prefill(tokens)


@pytest.mark.parametrize("name", CASES)
def test_estimate_is_near_what_the_engine_takes(
    name: str, tmp_path: Path, empty_bytes: int
) -> None:
    case = CASES[name]
    path = write_synthetic(tmp_path / "model.gguf", case.shape)
    arguments = [*case.arguments]
    if case.projector is not None:
        projector = write_synthetic_projector(tmp_path / "mmproj.gguf", case.projector)
        arguments += ["--mmproj", str(projector)]
    empty = estimated(write_synthetic(tmp_path / "empty.gguf", EMPTY), ["-c", "256"])

    found = estimated(path, arguments)
    with measured_server(path, arguments) as server:
        run(server, case)
        taken_bytes = server.resident_bytes() - empty_bytes

    estimated_bytes = found.total - empty.total
    report = (
        f"{name}: estimated {estimated_bytes / MIB:.1f} MiB, taken {taken_bytes / MIB:.1f} MiB"
        f" ({estimated_bytes / taken_bytes - 1:+.1%}); logged"
        f" { {kind: round(size / MIB, 1) for kind, size in server.logged_bytes.items()} },"
        f" {found.needs[0]}"
    )
    print(report)  # noqa: T201 - shown with -s, and when it fails
    assert taken_bytes >= LEAST_BYTES, report
    assert taken_bytes * (1 - MOST_UNDER) <= estimated_bytes, report
    assert estimated_bytes <= taken_bytes * (1 + MOST_OVER), report
    for kind, purpose in (("model", "weights"), ("KV", "kv_cache"), ("RS", "recurrent_state")):
        logged_bytes = server.logged_bytes.get(kind, 0)
        assert getattr(found.needs[0], purpose) == pytest.approx(logged_bytes, abs=MIB), report
