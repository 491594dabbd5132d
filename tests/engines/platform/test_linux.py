import os
import signal
import subprocess
import sys

import pytest

from llama_router.engines.platform import linux, process_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def test_a_process_has_a_start_time_until_it_is_a_zombie() -> None:
    table = process_table()
    process = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        first = table.start_time(process.pid)
        assert first is not None
        assert first == table.start_time(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert table.start_time(process.pid) is None
    finally:
        process.kill()
        process.wait()
    assert table.start_time(process.pid) is None


@pytest.mark.parametrize("has_children_files", [True, False])
def test_descendants_are_found_with_and_without_the_kernels_lists(
    *, has_children_files: bool
) -> None:
    table = process_table()
    table._has_children_files = has_children_files  # type: ignore[attr-defined] # Linux' own
    process = subprocess.Popen(
        ["/bin/sh", "-c", "sh -c 'sleep 1000 & echo $! $$; wait' & wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            expected = {int(pid) for pid in process.stdout.readline().split()}
        assert table.descendants(process.pid) == expected
        assert process.pid in table.descendants(os.getpid())
        tree = table.tree(process.pid, process.pid, b"LLAMA_ROUTER_ENGINE=x:1\0", set())
        assert tree == (expected | {process.pid}, True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_tree_is_not_called_whole_while_an_orphan_is_in_the_middle_of_exec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = process_table()
    mark = b"LLAMA_ROUTER_ENGINE=x:1\0"
    process = subprocess.Popen(
        ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"up\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"up\n"  # its exec is over
    real_stat = linux._stat

    def stat_without_environment(pid: int) -> list[str] | None:
        fields = real_stat(pid)
        if fields is not None:
            fields[linux._ENV_END] = "0"
        return fields

    try:
        others = table.descendants(os.getpid()) - {process.pid}
        assert table.tree(None, 1, mark, others) == (set(), True)
        with monkeypatch.context() as patch:
            patch.setattr(linux, "_environ", lambda _pid: b"\0")
            patch.setattr(linux, "_stat", stat_without_environment)
            assert table.tree(None, 1, mark, others) == (set(), False)
            # Its session is enough to know.
            assert table.tree(None, process.pid, mark, others) == ({process.pid}, True)
    finally:
        process.kill()
        process.communicate()


def test_marks_are_found_at_the_start_of_an_entry_only() -> None:
    table = process_table()
    environment = {"A": "LLAMA_ROUTER_ENGINE=abc:", "LLAMA_ROUTER_ENGINE": "abd:1"}
    process = subprocess.Popen(["/bin/sleep", "1000"], env=environment)
    try:
        # exec gives word before the new environment can be read.
        assert any(process.pid in table.marked(b"LLAMA_ROUTER_ENGINE=abd:") for _ in range(1000))
        assert process.pid not in table.marked(b"LLAMA_ROUTER_ENGINE=abc:")
        assert not table.kill_if(process.pid, lambda: False)
        assert process.poll() is None
        assert table.kill_if(process.pid, lambda: True)
        assert process.wait(60) == -9
        assert not table.kill_if(process.pid, lambda: True)
    finally:
        process.kill()
        process.wait()


def test_an_exit_watch_ends_with_the_process() -> None:
    table = process_table()
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert table.exit_watch(process.pid) is None
    watch = table.exit_watch(os.getpid())
    assert watch is not None
    os.close(watch)
