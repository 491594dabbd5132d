import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from llama_router.engines.measure import (
    CPU,
    Meter,
    measured_key,
    memory_of,
    parse_rollup,
    resident_bytes,
    tree_of,
    unreclaimable_bytes,
)

MIB = 2**20
DEADLINE_S = 20
LARGE = 64 * MIB

# Of proc_pid_smaps(5).
ROLLUP = """\
55d0c4e0f000-7ffd3a9f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               17824 kB
Pss:               15720 kB
Pss_Dirty:          5100 kB
Anonymous:          5100 kB
"""

HOLDER = f"""
import subprocess, sys
held = b"x" * {LARGE}
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", ""], stdin=sys.stdin)
    print(child.pid, flush=True)
    child.wait()
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_proportional_share_is_read() -> None:
    assert parse_rollup(ROLLUP) == 15720 * 1024
    assert parse_rollup("Rss: 5 kB\n") is None
    assert parse_rollup("") is None


def test_processes_that_are_gone_hold_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(DEADLINE_S)

    assert resident_bytes(process.pid) == 0
    assert resident_bytes(process.pid, tmp_path) == 0
    assert tree_of(process.pid) == ()


def test_without_a_rollup_it_is_the_resident_set(tmp_path: Path) -> None:
    assert resident_bytes(os.getpid(), tmp_path) > MIB


def test_a_tree_is_measured_whole() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "parent", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        child = int((lines - {"held"}).pop())

        pids = tree_of(parent.pid)
        both = memory_of(pids)[CPU]
        one = resident_bytes(parent.pid)
        parent.communicate()

    assert pids == (parent.pid, child)
    assert one > LARGE
    assert both > 2 * LARGE


@pytest.mark.asyncio
async def test_the_peak_is_kept_for_each_device() -> None:
    readings = iter([{CPU: 5, "cuda0": 1}, {CPU: 3, "cuda0": 2}, {CPU: 4}])
    meter = Meter(lambda: [1], measure=lambda _pids: next(readings))

    async with asyncio.timeout(DEADLINE_S):
        seen = [await meter.sample() for _ in range(3)]

    assert seen[1] == {CPU: 3, "cuda0": 2}
    assert meter.peak == {CPU: 5, "cuda0": 2}


@pytest.mark.asyncio
async def test_measuring_neither_blocks_the_loop_nor_runs_twice() -> None:
    go_on, threads = threading.Event(), set()

    def measure(_pids: Iterable[int]) -> dict[str, int]:
        threads.add(threading.get_ident())
        assert go_on.wait(DEADLINE_S)
        return {CPU: len(threads)}

    meter = Meter(lambda: [1], measure=measure)
    async with asyncio.timeout(DEADLINE_S):
        first, second = (asyncio.create_task(meter.sample(), name="sample") for _ in range(2))
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(first, second)

    assert list(results) == [{CPU: 1}, {CPU: 1}]
    assert threading.get_ident() not in threads


@pytest.mark.asyncio
async def test_who_leaves_does_not_spoil_it_for_others() -> None:
    go_on = threading.Event()

    def measure(_pids: Iterable[int]) -> dict[str, int]:
        assert go_on.wait(DEADLINE_S)
        return {CPU: 7}

    meter = Meter(lambda: [1], measure=measure)
    async with asyncio.timeout(DEADLINE_S):
        leaving, staying = (asyncio.create_task(meter.sample(), name="sample") for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        go_on.set()
        assert await staying == {CPU: 7}


@pytest.mark.asyncio
async def test_a_fault_is_the_callers_and_the_next_sample_works() -> None:
    def broken() -> list[int]:
        raise OSError("no")

    meter = Meter(broken, measure=lambda pids: {CPU: len(list(pids))})
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            with pytest.raises(OSError, match="no"):
                await meter.sample()

    assert meter.peak == {}


def test_a_key_changes_with_what_matters_and_with_nothing_else(tmp_path: Path) -> None:
    model, engine = tmp_path / "m.gguf", tmp_path / "llama-server"
    model.write_bytes(b"one")
    engine.write_bytes(b"build 1")
    argv = [str(engine), "-m", str(model), "-c", "512", "--port", "50001"]
    key = measured_key(model, argv, varying=["50001"])

    other_port = [*argv[:-1], "50002"]
    assert measured_key(model, other_port, varying=["50002"]) == key
    assert measured_key(model, [*argv[:4], "1024", *argv[5:]], varying=["50001"]) != key
    model.write_bytes(b"another")
    changed = measured_key(model, argv, varying=["50001"])
    assert (changed.model != key.model, changed.build == key.build) == (True, True)
    engine.write_bytes(b"the second build")
    assert measured_key(model, argv, varying=["50001"]).build != key.build
    assert measured_key(None, []) == measured_key(None, [])


def test_of_what_cannot_be_taken_back_mapped_files_are_no_part(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "Name:\tengine\nVmRSS:\t  900 kB\nRssAnon:\t    100 kB\nRssFile:\t    790 kB\n"
        "RssShmem:\t      10 kB\n"
    )
    if sys.platform == "linux":
        assert unreclaimable_bytes(7, tmp_path) == 110 * 1024
    assert unreclaimable_bytes(2**22 + 1) == 0
