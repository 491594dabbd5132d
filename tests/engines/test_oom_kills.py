import sys
from pathlib import Path

import pytest

from llama_router.engines.oom_kills import oom_kill_count


def test_the_count_is_read(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 17\ndrop_oom_kill 3\n")
    assert oom_kill_count(vmstat) == 17


@pytest.mark.parametrize("text", ["", "oom_kill\n", "oom_kill x\n", "the_oom_kill 3\n"])
def test_what_does_not_tell_is_no_count(tmp_path: Path, text: str) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text(text)
    assert oom_kill_count(vmstat) is None


def test_where_there_is_no_such_file_there_is_no_count(tmp_path: Path) -> None:
    assert oom_kill_count(tmp_path / "vmstat") is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_this_kernel_tells() -> None:
    count = oom_kill_count()
    assert count is None or count >= 0
