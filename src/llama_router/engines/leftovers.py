"""Ending what a killed router and its killed guardian have left behind.

A process is only touched when pid, start time and boot match the record, or when its environment
carries the record's random cookie: a pid alone may long mean another process.
"""

import sys
import time
from pathlib import Path

from llama_router.engines.platform import process_table
from llama_router.engines.platform.interface import ProcessTable
from llama_router.engines.record import (
    FILE_PREFIX,
    FILE_SUFFIX,
    GuardianRecord,
    ProcessRecord,
    mark_of,
    read_record,
)

# For the processes to be gone after SIGKILL; one that is not sleeps in the kernel.
GONE_TIMEOUT_S = 2.0
_LOOK_AGAIN_S = 0.005
# Rounds of search and kill, for trees that fork while they are being killed.
MAX_ROUNDS = 20


def clear(state_dir: Path) -> list[str]:
    """End every engine that an earlier router in ``state_dir`` left; say which.

    Engines of a guardian that is alive are left to it. Blocks up to some seconds when there is
    something to end; run it before anything starts. Windows' job objects leave nothing behind.
    """
    ended: list[str] = []
    if sys.platform != "win32":
        for path in sorted(state_dir.glob(f"{FILE_PREFIX}*{FILE_SUFFIX}")):
            ended += clear_record(path)
    return ended


def clear_record(path: Path) -> list[str]:
    """End what one record names, unless its guardian lives, and remove the record."""
    record = read_record(path)
    if record is None:
        path.unlink(missing_ok=True)
        return []
    table = process_table()
    if record.boot_id != table.boot_id():
        path.unlink(missing_ok=True)
        return []
    if table.start_time(record.guardian.pid) == record.guardian.start_time:
        return []
    ended = _end(table, record)
    path.unlink(missing_ok=True)
    return ended


def _end(table: ProcessTable, record: GuardianRecord) -> list[str]:
    models = {engine.pid: engine.model for engine in record.engines}
    ended: dict[int, str] = {}
    deadline = time.monotonic() + GONE_TIMEOUT_S
    for _ in range(MAX_ROUNDS):
        targets = _targets(table, record)
        if not targets:
            break
        for pid, start_time in targets.items():

            def is_meant(pid: int = pid, start_time: str = start_time) -> bool:
                return table.start_time(pid) == start_time

            if table.kill_if(pid, is_meant):
                ended[pid] = f"process {pid} of model {models.get(pid) or 'unknown'}"
        while targets and time.monotonic() < deadline:
            targets = {
                pid: start for pid, start in targets.items() if table.start_time(pid) == start
            }
            if targets:
                time.sleep(_LOOK_AGAIN_S)
    return list(ended.values())


def _targets(table: ProcessTable, record: GuardianRecord) -> dict[int, str]:
    """Return the living processes of the record with their start times."""
    mains = {engine.pid for engine in record.engines if _is_alive(table, engine)}
    roots = mains | table.marked(mark_of(record.cookie))
    pids = set(roots)
    for root in roots:
        pids |= table.descendants(root)
    return {pid: start for pid in pids if (start := table.start_time(pid)) is not None}


def _is_alive(table: ProcessTable, process: ProcessRecord) -> bool:
    return process.start_time != "" and table.start_time(process.pid) == process.start_time
