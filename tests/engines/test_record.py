import json
from pathlib import Path

import pytest

from llama_router.engines.record import (
    MAX_RECORD_BYTES,
    GuardianRecord,
    ProcessRecord,
    mark_of,
    read_record,
    record_path,
    write_record,
)

RECORD = GuardianRecord("boot", "c0", ProcessRecord(10, "77", "guardian"))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = record_path(tmp_path, "c0")
    RECORD.engines = [ProcessRecord(11, "78", "m"), ProcessRecord(12, "79", "n")]
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("pid", [1, 0, -1, "11", None, True])
def test_a_record_with_a_dangerous_pid_is_none(tmp_path: Path, pid: object) -> None:
    path = tmp_path / "record"
    process = {"pid": pid, "start_time": "1", "model": ""}
    path.write_text(json.dumps({"boot_id": "b", "cookie": "c", "guardian": process, "engines": []}))
    assert read_record(path) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b" " * (MAX_RECORD_BYTES + 1)])
def test_what_is_no_record_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record"
    path.write_bytes(content)
    assert read_record(path) is None
    assert read_record(tmp_path / "missing") is None


def test_marks_tell_generations_apart() -> None:
    environment = b"\0LLAMA_ROUTER_ENGINE=c0:12\0"
    assert mark_of("c0") in environment
    assert mark_of("c0", 12) in environment
    assert mark_of("c0", 1) not in environment
