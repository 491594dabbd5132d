import asyncio
import errno
import os
import sys
from pathlib import Path

import filelock
import pytest

from llama_router.hub.locks import lock_path, locked, try_lock


def test_one_at_a_time_and_the_official_library_too(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "models--o--r", "abc")
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    # What huggingface_hub locks with.
    theirs = filelock.FileLock(path, timeout=0)
    with pytest.raises(filelock.Timeout):
        theirs.acquire()
    os.close(held)
    with theirs:
        assert try_lock(path) is None
    held = try_lock(path)
    assert held is not None
    os.close(held)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    path = tmp_path / "x.lock"
    path.symlink_to(target)
    if hasattr(os, "O_NOFOLLOW"):
        with pytest.raises(OSError, match=r"."):
            try_lock(path)
        assert not target.exists()


@pytest.mark.asyncio
async def test_who_waits_is_told_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.hub.locks._POLL_S", 0.01)
    told: list[str] = []
    held = try_lock(tmp_path / "x.lock")
    assert held is not None

    def on_wait() -> None:
        told.append("waiting")
        asyncio.get_running_loop().call_later(0.05, os.close, held)

    async with asyncio.timeout(50), locked(tmp_path / "x.lock", on_wait):
        assert try_lock(tmp_path / "x.lock") is None
    assert told == ["waiting"]


@pytest.mark.asyncio
async def test_who_waits_for_the_gate_holds_no_lock_and_who_waits_for_a_lock_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.hub.locks._POLL_S", 0.01)
    gate = asyncio.Semaphore(1)
    held = try_lock(tmp_path / "theirs.lock")
    assert held is not None
    waits = asyncio.Event()

    async def have(name: str) -> None:
        async with locked(tmp_path / f"{name}.lock", waits.set, gate):
            assert gate.locked()

    async with asyncio.timeout(50):
        theirs = asyncio.create_task(have("theirs"))
        await waits.wait()
        await have("ours")
        async with gate:
            waiting = asyncio.create_task(have("ours"))
            await asyncio.sleep(0)
            free = try_lock(tmp_path / "ours.lock")
            assert free is not None
            os.close(free)
        await waiting
        assert not theirs.done()
        os.close(held)
        await theirs


@pytest.mark.skipif(sys.platform == "win32", reason="there locks are of the system")
def test_where_the_file_system_has_no_locks_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    locks_file = fcntl.flock
    cluster, machine = tmp_path / "cluster", tmp_path / "machine"
    machine.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(machine))

    def flock(descriptor: int, operation: int) -> None:
        if any(os.path.samestat(one.stat(), os.fstat(descriptor)) for one in cluster.iterdir()):
            raise OSError(errno.ENOLCK, "no locks")
        locks_file(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)
    held = try_lock(cluster / "x.lock")
    assert held is not None
    assert try_lock(cluster / "x.lock") is None
    other = try_lock(cluster / "y.lock")
    assert other is not None
    os.close(other)
    os.close(held)
