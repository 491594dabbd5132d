import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_router.engines import leftovers
from llama_router.engines.platform import process_table
from llama_router.engines.record import (
    MARK_VARIABLE,
    GuardianRecord,
    ProcessRecord,
    record_path,
    write_record,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="job objects leave nothing")

DEADLINE_S = 60
DEAD = ProcessRecord(2**22 + 1, "0", "guardian")


def sleeper(cookie: str = "other") -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        ["/bin/cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={MARK_VARIABLE: f"{cookie}:1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # Its environment cannot be read before its exec is over.
    process.stdin.write(b"up\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"up\n"
    return process


def start_time(pid: int) -> str:
    return process_table().start_time(pid) or ""


def write(state_dir: Path, record: GuardianRecord) -> Path:
    path = record_path(state_dir, record.cookie)
    write_record(path, record)
    return path


def test_recorded_and_marked_processes_are_ended_and_others_are_not(tmp_path: Path) -> None:
    recorded, marked, recycled, bystander = sleeper(), sleeper("c1"), sleeper(), sleeper("c11")
    try:
        path = write(
            tmp_path,
            GuardianRecord(
                process_table().boot_id(),
                "c1",
                DEAD,
                [
                    ProcessRecord(recorded.pid, start_time(recorded.pid), "m"),
                    # The same pid, but another process than then.
                    ProcessRecord(recycled.pid, "1", "n"),
                ],
            ),
        )
        ended = leftovers.clear(tmp_path)
        assert sorted(ended) == sorted(
            [
                f"process {recorded.pid} of model m",
                f"process {marked.pid} of model unknown",
            ]
        )
        assert recorded.wait(DEADLINE_S) == marked.wait(DEADLINE_S) == -9
        assert recycled.poll() is bystander.poll() is None
        assert not path.exists()
    finally:
        for process in (recorded, marked, recycled, bystander):
            process.kill()
            process.communicate()


def test_a_record_of_another_boot_names_nobody(tmp_path: Path) -> None:
    process = sleeper("c2")
    try:
        own = ProcessRecord(process.pid, start_time(process.pid), "m")
        path = write(tmp_path, GuardianRecord("another boot", "c2", DEAD, [own]))
        assert leftovers.clear(tmp_path) == []
        assert process.poll() is None
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_engines_of_a_living_guardian_are_left_to_it(tmp_path: Path) -> None:
    process = sleeper("c3")
    try:
        guardian = ProcessRecord(os.getpid(), start_time(os.getpid()), "guardian")
        own = ProcessRecord(process.pid, start_time(process.pid), "m")
        boot_id = process_table().boot_id()
        path = write(tmp_path, GuardianRecord(boot_id, "c3", guardian, [own]))
        assert leftovers.clear(tmp_path) == []
        assert process.poll() is None
        assert path.exists()
    finally:
        process.kill()
        process.communicate()


def test_a_broken_record_is_removed_and_a_missing_directory_is_empty(tmp_path: Path) -> None:
    broken = record_path(tmp_path, "c4")
    broken.write_text("{")
    assert leftovers.clear(tmp_path) == []
    assert not broken.exists()
    assert leftovers.clear(tmp_path / "missing") == []
