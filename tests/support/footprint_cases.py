"""Models and settings whose memory is estimated, and then taken by a real llama-server.

``python -m tests.support.footprint_cases [WORD ...]`` prints a table of those cases that have a
word in their names, or of all.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_router.catalog.footprint import Footprint, expect
from llama_router.catalog.synthetic import (
    ProjectorShape,
    Shape,
    write_synthetic,
    write_synthetic_projector,
)
from tests.support.measured_server import MeasuredServer, measured_server

MIB = 2**20
EMPTY = Shape(layers=1)
_EMPTY_ARGUMENTS = ("-c", "256")


@dataclass(frozen=True)
class Case:
    """``prompts``: tokens of each; ``turns``: of one chat, each added to those before.

    ``is_lasting``: what the engine keeps of prompts counts as well. A slot's prompt is kept when
    another request comes, so one more comes than there are slots.
    """

    shape: Shape
    arguments: tuple[str, ...]
    prompts: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    projector: ProjectorShape | None = None
    is_lasting: bool = False


@dataclass(frozen=True)
class Outcome:
    """In bytes, both without what an engine takes that has next to nothing to hold."""

    name: str
    estimated: int
    taken: int
    footprint: Footprint
    logged: dict[str, int]

    @property
    def deviation(self) -> float:
        """By how much the estimate is above what was taken, as a share of that."""
        return self.estimated / self.taken - 1

    def __str__(self) -> str:
        return (
            f"{self.name:<44} {self.estimated / MIB:8.1f} {self.taken / MIB:8.1f}"
            f" {self.deviation:+7.1%}"
        )


# Reading a prompt costs about as many multiplications as the cache has bytes, for every second
# token: so layers are many and contexts no longer than one core can read in some seconds.
CASES = {
    "several heads share a key": Case(
        Shape(layers=40, heads=16, kv_heads=8, key_length=256), ("-c", "1024"), (1000,)
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
        Shape(layers=24, heads=16, kv_heads=16, key_length=256),
        ("-c", "2048", "-np", "4", "-ctk", "q8_0", "-ctv", "q8_0"),
        (500, 500, 500, 500, 100),
        is_lasting=True,
    ),
    "four slots of their own": Case(
        Shape(architecture="qwen3", layers=14, heads=16, kv_heads=16, key_length=256),
        ("-c", "2048", "-np", "4"),
        (500, 500, 500, 500, 100),
        is_lasting=True,
    ),
    "four slots of one cache, all defaults": Case(
        Shape(layers=14, heads=16, kv_heads=16, key_length=256, context_length=2048),
        (),
        (1000, 1000, 900),
        is_lasting=True,
    ),
    "projector": Case(
        Shape(layers=10, heads=16, kv_heads=16, key_length=256),
        ("-c", "2048"),
        (1200,),
        projector=ProjectorShape(
            embedding_length=1024, feed_forward_length=4096, heads=16, image_pixels=384
        ),
    ),
    "recurrent state": Case(
        Shape(architecture="mamba", layers=24, embedding_length=1024, state_size=256),
        ("-c", "4096", "-np", "4"),
        (600,),
    ),
    "prompts kept, limit stated": Case(
        Shape(layers=8, heads=8, kv_heads=8, key_length=256),
        ("-c", "1024", "-np", "1", "--cache-ram", "320"),
        (1000,) * 8,
        is_lasting=True,
    ),
    "prompts kept, no limit in bytes": Case(
        Shape(layers=24, heads=8, kv_heads=8, key_length=256),
        ("-c", "1024", "-np", "1", "--cache-ram", "-1"),
        (900, 900, 900),
        is_lasting=True,
    ),
    "checkpoints of a chat": Case(
        Shape(
            architecture="gemma3",
            layers=24,
            heads=8,
            kv_heads=8,
            key_length=256,
            sliding_window=128,
        ),
        ("-c", "2048", "-np", "1", "--cache-ram", "0", "--ctx-checkpoints", "10"),
        turns=(150,) * 12,
        is_lasting=True,
    ),
}


def empty_bytes(folder: Path) -> tuple[int, int]:
    """What is estimated for an engine that has next to nothing to hold, and what it takes."""
    path = write_synthetic(folder / "empty.gguf", EMPTY)
    with measured_server(path, _EMPTY_ARGUMENTS) as server:
        server.prefill(100)
        return expect(path, _EMPTY_ARGUMENTS).total, server.resident_bytes()


def outcome_of(name: str, folder: Path, empty: tuple[int, int]) -> Outcome:
    """Estimate a case, and see what llama-server takes for it."""
    case = CASES[name]
    path = write_synthetic(folder / "model.gguf", case.shape)
    arguments = [*case.arguments]
    if case.projector is not None:
        projector = write_synthetic_projector(folder / "mmproj.gguf", case.projector)
        arguments += ["--mmproj", str(projector)]
    found = expect(path, arguments)
    with measured_server(path, arguments) as server:
        _use(server, case)
        taken = server.resident_bytes()
    estimated = found.reserve()["cpu"] if case.is_lasting else found.total
    return Outcome(name, estimated - empty[0], taken - empty[1], found, server.logged_bytes)


def _use(server: MeasuredServer, case: Case) -> None:
    for index, tokens in enumerate(case.prompts):
        if case.projector is not None:
            server.show_picture(case.projector.image_pixels, tokens)
        else:
            server.prefill(tokens, first=index)
    for index in range(len(case.turns)):
        server.prefill(sum(case.turns[: index + 1]))


def _main(words: Sequence[str]) -> None:
    names = [name for name in CASES if not words or any(word in name for word in words)]
    print(f"{'MiB beyond an empty engine':<44} estimate    taken")  # noqa: T201 - a command
    with tempfile.TemporaryDirectory() as folder:
        empty = empty_bytes(Path(folder))
        for name in names:
            print(outcome_of(name, Path(folder), empty), flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    _main(sys.argv[1:])
