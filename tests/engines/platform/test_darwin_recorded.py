"""The macOS form against what ps, lsof, sysctl and kqueue of macOS 14 print and take."""

import importlib.util
import os
import select
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import llama_router.engines.platform as platform_package

_SOURCE = platform_package.__path__[0] + "/darwin.py"

FAMILIES = """\
    1     0     1 Ss
  317     1   317 Ss
 4242   317  4242 S+
 4243  4242  4242 S
 4244  4243  4242 R
 4250     1  4250 S
 4251  4242  4242 Z+
"""
ENVIRONMENTS = """\
  317 /bin/zsh -l TERM=xterm-256color
 4242 llama-server --port 50000 PATH=/usr/bin LLAMA_ROUTER_ENGINE=abc:1 HOME=/Users/me
 4250 /opt/stray LLAMA_ROUTER_ENGINE=abc:1
 4260 /opt/other LLAMA_ROUTER_ENGINE=abc:12 HOME=/Users/me
"""
# The arguments of select.kevent, in their order.
_CHANGE = ("ident", "filter", "flags", "fflags")
LISTENERS = "p4243\nf7\np4250\nf3\n"


@pytest.fixture
def darwin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the module as macOS would, apart from what other tests have loaded."""
    monkeypatch.setattr(sys, "platform", "darwin")
    spec = importlib.util.spec_from_file_location("darwin_under_test", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def printed(darwin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have the system's tools print what is put here under their first argument."""
    answers: dict[str, str] = {}

    def run(*command: str) -> str:
        return answers.get(f"{command[0].rpartition('/')[2]} {command[1]}", "")

    monkeypatch.setattr(darwin, "_run", run)
    return answers


def test_the_tree_is_the_group_what_is_below_it_and_what_has_the_mark(
    darwin: ModuleType, printed: dict[str, str]
) -> None:
    printed["ps -axo"], printed["ps -xEww"] = FAMILIES, ENVIRONMENTS
    tree = darwin.DarwinProcessTable().tree(4242, 4242, b"LLAMA_ROUTER_ENGINE=abc:1\0", ())
    assert tree.pids == {4242, 4243, 4244, 4250}


def test_another_engine_with_a_longer_number_is_not_ours(
    darwin: ModuleType, printed: dict[str, str]
) -> None:
    printed["ps -xEww"] = ENVIRONMENTS
    table = darwin.DarwinProcessTable()
    assert table.marked(b"LLAMA_ROUTER_ENGINE=abc:1\0") == {4242, 4250}
    assert table.marked(b"LLAMA_ROUTER_ENGINE=abc:") == {4242, 4250, 4260}


def test_zombies_are_no_descendants(darwin: ModuleType, printed: dict[str, str]) -> None:
    printed["ps -axo"] = FAMILIES
    assert darwin.DarwinProcessTable().descendants(317) == {4242, 4243, 4244}


def test_the_start_is_what_ps_says_and_none_for_the_dead(
    darwin: ModuleType, printed: dict[str, str]
) -> None:
    table = darwin.DarwinProcessTable()
    printed["ps -o"] = "S+   Mon Nov 23 10:11:12 2026    \n"
    assert table.start_time(4242) == "Mon Nov 23 10:11:12 2026"
    printed["ps -o"] = "Z+   Mon Nov 23 10:11:12 2026    \n"
    assert table.start_time(4242) is None
    printed["ps -o"] = ""
    assert table.start_time(4242) is None


def test_listeners_are_counted_with_those_that_are_ours(
    darwin: ModuleType, printed: dict[str, str]
) -> None:
    printed["lsof -nP"] = LISTENERS
    table = darwin.DarwinProcessTable()
    assert table.listener_owners("127.0.0.1", 50000, [4242, 4243]) == (2, 1)
    printed["lsof -nP"] = ""
    assert table.listener_owners("127.0.0.1", 50000, [4242]) == (0, 0)


def test_the_boot_is_named_by_the_kernel(darwin: ModuleType, printed: dict[str, str]) -> None:
    printed["sysctl -n"] = "5A0F7A9C-2B5C-4F1E-8E9D-0C1B2A3D4E5F\n"
    assert darwin.DarwinProcessTable().boot_id() == "5A0F7A9C-2B5C-4F1E-8E9D-0C1B2A3D4E5F"


def test_an_exit_is_watched_by_a_queue_that_is_kept(
    darwin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    missing = {77}

    class Queue:
        def control(self, changes: list[Any], count: int, timeout: float) -> list[Any]:
            asked.append((changes, count, timeout))
            if changes[0].ident in missing:
                raise ProcessLookupError
            return []

        def fileno(self) -> int:
            return 9

        def close(self) -> None:
            asked.append("closed")

    names = {"KQ_FILTER_PROC": -5, "KQ_EV_ADD": 1, "KQ_NOTE_EXIT": 1 << 31}
    for name, value in names.items():
        monkeypatch.setattr(select, name, value, raising=False)
    monkeypatch.setattr(select, "kqueue", Queue, raising=False)
    monkeypatch.setattr(
        select,
        "kevent",
        lambda *change: SimpleNamespace(**dict(zip(_CHANGE, change, strict=True))),
        raising=False,
    )
    table = darwin.DarwinProcessTable()
    assert table.exit_watch(4242) == 9
    (change,), count, timeout = asked[0]
    assert (change.ident, change.filter, change.flags, change.fflags) == (4242, -5, 1, 1 << 31)
    assert (count, timeout) == (0, 0)
    assert table.exit_watch(77) is None
    assert asked[-1] == "closed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_exit_is_collected_with_its_status(darwin: ModuleType) -> None:
    table = darwin.DarwinProcessTable()
    with pytest.MonkeyPatch.context() as patch:
        results = iter([(0, 0), (4242, 256)])
        patch.setattr(os, "waitpid", lambda _pid, _flags: next(results))
        seen: list[int] = []
        assert table.collect_exit(seen.append) is None
        assert table.collect_exit(seen.append) == (4242, 256)
        assert seen == [4242]
        patch.setattr(os, "waitpid", _no_child)
        assert table.collect_exit(seen.append) is None


def _no_child(_pid: int, _flags: int) -> tuple[int, int]:
    raise ChildProcessError


def test_who_is_not_meant_is_not_killed(
    darwin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    table = darwin.DarwinProcessTable()
    assert not table.kill_if(4242, lambda: False)
    assert table.kill_if(4243, lambda: True)
    assert killed == [4243]
