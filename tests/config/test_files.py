import os
import sys
from pathlib import Path

import pytest

from llama_router.config import files

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes, links and pipes")


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(b"x" * files.FILE_MAX_BYTES)
    assert len(files.read_bytes(path)) == files.FILE_MAX_BYTES
    path.write_bytes(b"x" * (files.FILE_MAX_BYTES + 1))
    with pytest.raises(files.FileError, match="longer than 4 MiB"):
        files.read_bytes(path)


def test_what_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(files.FileError, match="No such file"):
        files.read_bytes(tmp_path / "nothing")


@posix
def test_folders_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    if sys.platform != "win32":
        os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero")):
        with pytest.raises(files.FileError):
            files.read_bytes(path)


@posix
def test_a_new_file_is_for_its_owner_only_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "c"
    files.replace(path, b"text")
    assert path.read_bytes() == b"text"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700


@posix
def test_replacing_keeps_the_mode_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles" / "c"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    files.replace(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert mode_of(target) == 0o640


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "c"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(files.FileError, match="No space left"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="nothing tells what is open")
def test_a_folder_in_the_place_of_the_file_is_said_and_not_left_open(tmp_path: Path) -> None:
    with pytest.raises(files.FileError, match="is not a regular file"):
        files.read_bytes(tmp_path)
    opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    assert str(tmp_path) not in opened


def test_nothing_is_there_where_nobody_can_look(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    # Python's own test raises for this name, as for a folder that may not be entered.
    unspeakable = tmp_path / ("n" * 300) / "config.yaml"
    assert [files.is_there(one) for one in (file, tmp_path, unspeakable)] == [True, True, False]
    assert [files.is_folder(one) for one in (file, tmp_path, unspeakable)] == [False, True, False]
