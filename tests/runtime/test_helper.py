import os
import sys

import pytest

from llama_router.runtime.helper import end_helper, start_helper


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


def test_one_that_is_ended_is_gone_with_its_pipes_even_if_it_has_not_read_all() -> None:
    process = start_helper("json.tool")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"[")
    for _ in range(2):
        end_helper(process)
        assert process.returncode not in (None, 0)
        assert process.stdin.closed
        assert process.stdout.closed
