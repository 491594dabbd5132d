import secrets

import pytest

pytest.importorskip("resource", reason="limits memory as POSIX systems can")
from tests.catalog import fuzz_gguf


def test_no_mutated_header_breaks_the_readers_limits() -> None:
    seed = secrets.randbits(32)
    print("seed", seed)  # noqa: T201 - to repeat a failure

    assert fuzz_gguf.run(seed, 3000) == []


def test_the_same_seed_gives_the_same_files() -> None:
    assert fuzz_gguf.content(7, 11) == fuzz_gguf.content(7, 11)
    assert len({fuzz_gguf.content(7, number)[0] for number in range(50)}) > 40
