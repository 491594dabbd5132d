"""Hunger for memory in a process of its own; children are tested with the conformance suite."""

import subprocess
import sys

import pytest

from llama_router.stress.fake_engine.__main__ import _options
from llama_router.stress.fake_engine.offspring import make_noise

_CODE = """
import sys
from llama_router.stress.fake_engine.offspring import fill_memory, limit_memory
limit_memory(int(sys.argv[1]))
fill_memory()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
def test_memory_is_filled_up_to_the_limit_and_the_end_says_why() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _CODE, str(64 * 1024 * 1024)],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.endswith(b"failed to allocate buffer\n")


def test_an_engine_without_switches_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    make_noise(_options([]))
    assert capfd.readouterr().out == ""
