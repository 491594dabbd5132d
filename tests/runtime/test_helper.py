import os
import sys

import pytest

from llama_router.runtime.helper import start_helper


def test_a_helper_has_pipes_and_ends_with_its_stdin() -> None:
    # Reads JSON from its stdin and writes it to its stdout.
    with start_helper("json.tool") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.args == [sys.executable, "-P", "-m", "json.tool"]
        answer, _ = process.communicate(b"[1]", timeout=20)
    assert answer.split() == [b"[", b"1", b"]"]
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="sessions are POSIX")
def test_a_terminals_ctrl_c_does_not_reach_it() -> None:
    with start_helper("json.tool") as process:
        assert os.getsid(process.pid) == process.pid
        process.communicate(b"1", timeout=20)


def test_its_environment_is_what_it_is_given() -> None:
    env = {**os.environ, "PYTHONHASHSEED": "no number"}
    with start_helper("json.tool", env=env) as process:
        process.communicate(b"1", timeout=20)
    assert process.returncode == 1
