import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_router.catalog import watcher
from llama_router.catalog.watcher import (
    CHANGED,
    Watcher,
    WatchRequest,
    can_be_told,
    is_telling,
    present,
    signature,
)

PATIENCE_S = 20.0


class Told(io.RawIOBase):
    """Where a watcher writes."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def write(self, line: object) -> int:
        assert line == CHANGED
        self._count.release()
        return len(CHANGED)

    def wait(self) -> None:
        assert self._count.acquire(timeout=PATIENCE_S)

    def calm_down(self) -> None:
        while self._count.acquire(blocking=False):
            pass


@pytest.fixture
def told(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Told]:
    out, over = Told(), threading.Event()
    folders = (tmp_path / "m",)
    (tmp_path / "m").mkdir()
    one = Watcher(WatchRequest(folders=folders, polls=request.param), out, over)  # type: ignore[arg-type]  # as much of a file as it needs
    thread = threading.Thread(target=one.run)
    thread.start()
    yield out
    over.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(watcher, "_POLL_SHARE", 1.0)
    monkeypatch.setattr(watcher, "_LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr(watcher, "_QUIET_MS", 20)


@pytest.mark.parametrize("told", [False, True], indirect=True, ids=["told", "looking"])
def test_files_that_come_and_go_are_told(told: Told, tmp_path: Path) -> None:
    told.wait()
    (tmp_path / "m" / "below").mkdir()
    (tmp_path / "m" / "a.gguf").write_bytes(b"x")
    told.wait()
    told.calm_down()
    (tmp_path / "m" / "a.gguf").unlink()
    told.wait()


@pytest.mark.parametrize("told", [False, True], indirect=True, ids=["told", "looking"])
def test_folder_that_goes_and_comes_back_is_watched_again(told: Told, tmp_path: Path) -> None:
    told.wait()
    (tmp_path / "m").rename(tmp_path / "away")
    told.wait()
    told.calm_down()
    (tmp_path / "m").mkdir()
    told.wait()
    told.calm_down()
    (tmp_path / "m" / "a.gguf").write_bytes(b"x")
    told.wait()


@pytest.mark.parametrize("folder", [b"m", b"caf\xe9"])
def test_names_that_are_no_text_are_watched_as_well(tmp_path: Path, folder: bytes) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder))
    place.mkdir()
    out, over = Told(), threading.Event()
    one = Watcher(WatchRequest(folders=(place,)), out, over)  # type: ignore[arg-type]  # as above
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        out.wait()
        out.calm_down()
        Path(os.fsdecode(os.fsencode(place) + b"/\xff.gguf")).write_bytes(b"x")
        out.wait()
        out.calm_down()
        (place / "b.gguf").write_bytes(b"x")
        out.wait()
    finally:
        over.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_files_that_are_being_written_tell_nothing() -> None:
    assert is_telling("/m/a.gguf")
    assert is_telling("/m/folder")
    for name in ("a.gguf.part", "0123.incomplete", "x.lock", ".a.gguf.partial", ".hidden"):
        assert not is_telling(f"/m/{name}")


def test_signature_changes_with_what_a_scan_looks_at(tmp_path: Path) -> None:
    before = signature([tmp_path])
    (tmp_path / "a.txt").write_bytes(b"x")
    assert signature([tmp_path]) == before

    (tmp_path / "a.gguf").write_bytes(b"x")
    with_file = signature([tmp_path])
    assert with_file != before
    (tmp_path / "a.gguf").write_bytes(b"xy")
    assert signature([tmp_path]) != with_file
    os.mkfifo(tmp_path / "b.gguf")
    (tmp_path / "round").symlink_to(tmp_path)
    assert signature([tmp_path, tmp_path / "missing"]) != before


def test_system_is_not_asked_about_links_networks_and_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m" / "below").mkdir(parents=True)
    assert can_be_told([tmp_path / "m"])

    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:5 / {tmp_path.resolve()}/m rw shared:1 - nfs4 server:/x rw\n"
        "broken\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "_MOUNTS", mounts)
        assert not can_be_told([tmp_path / "m"])
        assert can_be_told([tmp_path])
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "_MAX_FOLDERS", 1)
        assert not can_be_told([tmp_path / "m"])
    (tmp_path / "m" / "all").symlink_to("/")
    assert not can_be_told([tmp_path / "m"])


def test_what_is_left_out_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    before = signature([tmp_path], [tmp_path / "far"])
    (tmp_path / "far" / "a.gguf").write_bytes(b"x")
    assert signature([tmp_path], [tmp_path / "far"]) == before
    assert signature([tmp_path]) != before

    out, over = Told(), threading.Event()
    folders = (tmp_path, tmp_path / "far", tmp_path / "far" / "below")
    request = WatchRequest(folders=folders, left_out=(tmp_path / "far",))
    one = Watcher(request, out, over)  # type: ignore[arg-type]  # as above
    assert one._folders == (tmp_path,)
    # The system cannot be told to leave something out.
    assert one._has_gaps([tmp_path])
    assert not one._has_gaps([tmp_path / "other"])


def test_only_folders_are_present(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert set(present([tmp_path, tmp_path / "file", tmp_path / "none"])) == {tmp_path}
