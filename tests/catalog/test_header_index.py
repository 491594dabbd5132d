import os
import random
from pathlib import Path

import pytest

from llama_router.catalog import header_index
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.header_index import HeaderIndex
from llama_router.catalog.headers import Header
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_broken import Breakage, write_broken


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test have just been made, which an index does not trust."""
    monkeypatch.setattr(header_index, "_RACY_NS", 0)


def model(path: Path, text: str = "one two three") -> Path:
    (made,) = write_model(path, text, name=path.stem)
    return made


def scan(index: Path | None, *paths: Path) -> tuple[HeaderIndex, list[Header | GgufError]]:
    headers = HeaderIndex(index)
    found = [headers.of(path, path.stat()) for path in paths]
    headers.save()
    return headers, found


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    index = tmp_path / "state" / "headers"
    good, bad = model(tmp_path / "a.gguf"), write_broken(tmp_path / "b.gguf", Breakage.BAD_MAGIC)

    first, found = scan(index, good, bad)
    again, known = scan(index, good, bad)

    assert (first.read_count, first.known_count) == (2, 0)
    assert (again.read_count, again.known_count) == (0, 2)
    assert known[0] == found[0]
    assert isinstance(known[1], GgufError)
    assert known[1].reason == "not a GGUF file"
    assert index.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["content", "replaced", "time"])
def test_changed_file_is_read_again(tmp_path: Path, how: str) -> None:
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")
    scan(index, path)

    if how == "content":
        write_model(path, "another text of other length", name="b")
    elif how == "replaced":
        # Of the same size and time: another file all the same.
        status = path.stat()
        other = model(tmp_path / "other.gguf")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.rename(path)
    else:
        os.utime(path, ns=(0, 0))
    again, _found = scan(index, path)

    assert again.read_count == 1


def test_file_changed_just_before_is_read_by_the_next_scan_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_index, "_RACY_NS", 10**12)
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")

    scan(index, path)
    again, _found = scan(index, path)

    assert again.read_count == 1


def test_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")
    scan(index, path)
    size = index.stat().st_size

    path.unlink()
    scan(index)

    assert index.stat().st_size < size


def test_scans_of_different_folders_share_an_index(tmp_path: Path) -> None:
    index = tmp_path / "headers"
    one, other = model(tmp_path / "a.gguf"), model(tmp_path / "b.gguf")

    counts = []
    for path in (one, other, one, other):
        headers, _found = scan(index, path)
        counts.append(headers.read_count)

    assert counts == [1, 1, 0, 0]


def test_what_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")
    status = path.stat()
    path.unlink()

    headers = HeaderIndex(index)
    assert isinstance(headers.of(path, status), GgufError)
    headers.save()

    assert HeaderIndex(index).of(model(path), path.stat()) is not None
    assert not index.exists() or HeaderIndex(index).of(path, status) is not None


@pytest.mark.parametrize("seed", range(40))
def test_index_that_is_not_as_it_was_written_counts_as_none(tmp_path: Path, seed: int) -> None:
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")
    scan(index, path)
    randomness = random.Random(seed)  # noqa: S311 - no secret
    content = bytearray(index.read_bytes())
    if seed % 4 == 0:
        del content[randomness.randrange(len(content)) :]
    else:
        content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
    index.write_bytes(content)

    headers, found = scan(index, path)

    assert headers.read_count == 1
    assert isinstance(found[0], Header)
    assert HeaderIndex(index).of(path, path.stat()) == found[0]


@pytest.mark.parametrize("kind", ["fifo", "folder", "large"])
def test_index_that_is_something_else_does_no_harm(tmp_path: Path, kind: str) -> None:
    index, path = tmp_path / "headers", model(tmp_path / "a.gguf")
    if kind == "fifo":
        os.mkfifo(index)
    elif kind == "folder":
        index.mkdir()
    else:
        index.touch()
        os.truncate(index, 1 << 40)

    headers, found = scan(index, path)

    assert headers.read_count == 1
    assert isinstance(found[0], Header)


def test_index_in_a_place_that_cannot_be_written_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    headers, _found = scan(tmp_path / "file" / "headers", model(tmp_path / "a.gguf"))

    assert headers.read_count == 1
    assert "cannot be written" in caplog.text


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    path = model(tmp_path / "a.gguf")

    scan(None, path)

    assert sorted(tmp_path.iterdir()) == [path]


def test_what_is_left_out_stays_remembered_unasked(tmp_path: Path) -> None:
    index = tmp_path / "headers"
    (tmp_path / "far").mkdir()
    far, near = model(tmp_path / "far" / "a.gguf"), model(tmp_path / "b.gguf")
    scan(index, far, near)
    status = far.stat()
    (tmp_path / "far").rename(tmp_path / "gone")

    headers = HeaderIndex(index)
    headers.of(near, near.stat())
    headers.save(lambda folder: folder != far.parent)

    again = HeaderIndex(index)
    again.of(far, status)
    assert (again.known_count, again.read_count) == (1, 0)


def test_an_index_whose_own_folder_is_left_out_is_not_written(tmp_path: Path) -> None:
    index, path = tmp_path / "state" / "headers", model(tmp_path / "a.gguf")
    headers = HeaderIndex(index)
    headers.of(path, path.stat())
    headers.save(lambda folder: folder != index.parent)

    assert not index.parent.exists()
