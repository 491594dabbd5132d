import os
from pathlib import Path

import huggingface_hub
import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder, publish_lock
from llama_router.hub.locks import lock_path, try_lock
from llama_router.hub.removal import discard_parts, remove_model

OLD, NEW = "a" * 40, "b" * 40


class Cache:
    """A cache with files put into it; a blob's name comes from its content's letter."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = RepoFolder(path, "org/repo")
        self.folder.prepare()

    def add(self, commit: str, name: str, letter: str, size: int = 1000) -> Path:
        blob = letter * 64
        self.folder.blob(blob).write_bytes(letter.encode() * size)
        return self.folder.link(commit, name, blob)

    def has(self, letter: str) -> bool:
        return self.folder.blob(letter * 64).exists()

    def is_sound(self) -> bool:
        return huggingface_hub.scan_cache_dir(self.path).warnings == []


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_the_last_model_takes_the_repository_with_it(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    cache.add(NEW, "mmproj-F16.gguf", "2", 50)
    cache.folder.set_main(NEW)
    removed = remove_model(cache.path, [model])
    assert removed.freed_bytes == 1050
    assert removed.files == ("m-Q4_0.gguf", "mmproj-F16.gguf")
    assert not cache.folder.path.exists()
    assert cache.is_sound()


def test_what_another_model_uses_stays(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    cache.add(NEW, "m-Q8_0.gguf", "3")
    cache.add(NEW, "mmproj-F16.gguf", "2")
    cache.folder.set_main(NEW)
    removed = remove_model(cache.path, [model])
    assert (removed.freed_bytes, removed.files) == (1000, ("m-Q4_0.gguf",))
    assert [cache.has(letter) for letter in "123"] == [False, True, True]
    assert cache.folder.main_commit() == NEW
    assert cache.is_sound()


def test_a_blob_under_two_names_stays_for_the_other(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    same = cache.add(NEW, "copy/m-Q4_0.gguf", "1")
    assert remove_model(cache.path, [model]).freed_bytes == 0
    assert same.exists()
    assert remove_model(cache.path, [same]).freed_bytes == 1000


def test_a_snapshot_with_a_ref_keeps_its_files_and_a_forgotten_one_does_not(cache: Cache) -> None:
    for commit in (OLD, NEW):
        cache.add(commit, "m-Q4_0.gguf", "1")
        cache.add(commit, "m-Q8_0.gguf", "3")
    kept, gone = (cache.folder.snapshots / NEW / f"m-{tag}.gguf" for tag in ("Q4_0", "Q8_0"))
    cache.folder.set_main(NEW)
    assert remove_model(cache.path, [gone]).freed_bytes == 1000
    assert not cache.has("3")
    (cache.folder.refs / "v1").write_text(OLD)
    assert remove_model(cache.path, [kept]).freed_bytes == 0
    assert cache.has("1")
    assert cache.folder.main_commit() == ""
    assert cache.is_sound()


def test_all_parts_go_and_empty_folders_too(cache: Cache) -> None:
    parts = [cache.add(NEW, f"big/m-Q8_0-0000{n}-of-00002.gguf", str(n)) for n in (1, 2)]
    cache.add(NEW, "README.md", "4")
    cache.folder.set_main(NEW)
    assert remove_model(cache.path, parts).freed_bytes == 2000
    assert [path.name for path in (cache.folder.snapshots / NEW).iterdir()] == ["README.md"]
    assert cache.is_sound()


def test_a_file_that_is_no_link_goes_too(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    model.unlink()
    model.write_bytes(b"copy")
    assert remove_model(cache.path, [model]).freed_bytes == 4
    # Nobody leads to the blob, but nobody asked for it to go either.
    assert cache.has("1")


def test_a_part_of_it_goes_along(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    cache.folder.part("1" * 64).write_bytes(b"123")
    assert remove_model(cache.path, [model]).freed_bytes == 1003
    assert not cache.folder.path.exists()


def test_a_shared_blob_is_unlinked_and_never_followed(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-shared"
    outside.write_bytes(b"shared by all")
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    cache.folder.blob("1" * 64).unlink()
    cache.folder.blob("1" * 64).symlink_to(outside)
    assert remove_model(cache.path, [model]).freed_bytes == 0
    assert outside.read_bytes() == b"shared by all"
    assert not cache.folder.blob("1" * 64).is_symlink()


def test_links_that_lead_out_are_removed_as_links(cache: Cache, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-other.gguf"
    outside.write_bytes(b"somebody's")
    model = cache.folder.snapshots / NEW / "m-Q4_0.gguf"
    model.parent.mkdir()
    model.symlink_to(outside)
    assert remove_model(cache.path, [model]).freed_bytes == 0
    assert outside.exists()


@pytest.mark.parametrize("which", ["repo", "snapshot", "inner"])
def test_folders_that_are_links_are_left_to_their_owner(cache: Cache, which: str) -> None:
    elsewhere = cache.path.parent / f"{cache.path.name}-elsewhere"
    model = cache.add(NEW, "in/m-Q4_0.gguf", "1")
    moved = {
        "repo": cache.folder.path,
        "snapshot": cache.folder.snapshots / NEW,
        "inner": model.parent,
    }[which]
    moved.rename(elsewhere)
    moved.symlink_to(elsewhere)
    with pytest.raises(HubError) as raised:
        remove_model(cache.path, [model])
    assert raised.value.code == "bad_request"
    assert "m-Q4_0.gguf" in {path.name for path in elsewhere.rglob("*")}


@pytest.mark.parametrize(
    "path",
    [
        "other.gguf",
        "../outside.gguf",
        "models--org--repo/blobs/x",
        "models--org--repo/snapshots/x",
        "models--org--repo/snapshots/../../../../etc/passwd",
        "models--..--repo/snapshots/a/b",
    ],
)
def test_what_is_not_in_a_snapshot_is_not_removed(cache: Cache, path: str) -> None:
    with pytest.raises(HubError) as raised:
        remove_model(cache.path, [cache.path / path])
    assert raised.value.code == "bad_request"


def test_what_is_not_there_is_said(cache: Cache) -> None:
    cache.add(NEW, "m-Q4_0.gguf", "1")
    with pytest.raises(HubError) as raised:
        remove_model(cache.path, [cache.folder.snapshots / NEW / "n.gguf"])
    assert raised.value.code == "not_found"
    with pytest.raises(HubError, match="no file"):
        remove_model(cache.path, [])
    with pytest.raises(HubError, match="not of one snapshot"):
        remove_model(
            cache.path, [cache.folder.snapshots / commit / "m-Q4_0.gguf" for commit in (OLD, NEW)]
        )


def test_what_is_being_downloaded_is_left_alone(cache: Cache) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    held = try_lock(lock_path(cache.path, cache.folder.name, "1" * 64))
    assert held is not None
    with pytest.raises(HubError) as raised:
        remove_model(cache.path, [model])
    assert raised.value.code == "busy"
    assert model.exists()
    os.close(held)
    assert remove_model(cache.path, [model]).freed_bytes == 1000


def test_where_not_all_that_might_use_a_blob_can_be_seen_it_stays(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cache.add(NEW, "m-Q4_0.gguf", "1")
    cache.add(OLD, "m-Q4_0.gguf", "1")
    cache.folder.set_main(NEW)
    monkeypatch.setattr("llama_router.hub.removal._MAX_FOLDERS", 1)
    with pytest.raises(HubError, match="more than 1 folders"):
        remove_model(cache.path, [model])
    assert cache.has("1")


def test_what_is_given_up_goes_unless_somebody_here_goes_on_with_it(cache: Cache) -> None:
    cache.add(NEW, "m-Q4_0.gguf", "1")
    for letter in "23":
        cache.folder.blob(letter * 64).write_bytes(b"x" * 10)
    for letter in "456":
        cache.folder.part(letter * 64).write_bytes(b"x" * 7)
    blobs = [letter * 64 for letter in "123456"]
    # Under way, and waiting for its turn.
    held = try_lock(lock_path(cache.path, cache.folder.name, "5" * 64))
    assert held is not None
    try:
        kept = {letter * 64 for letter in "356"}
        assert discard_parts(cache.path, "org/repo", blobs, kept) == 17
    finally:
        os.close(held)
    assert [cache.has(letter) for letter in "123"] == [True, False, True]
    left = [letter for letter in "456" if cache.folder.part(letter * 64).exists()]
    assert left == ["5", "6"]
    assert cache.is_sound()


def test_while_another_process_downloads_the_same_its_whole_files_stay(cache: Cache) -> None:
    cache.folder.blob("1" * 64).write_bytes(b"x" * 10)
    for letter in "23":
        cache.folder.part(letter * 64).write_bytes(b"x" * 7)
    blobs = [letter * 64 for letter in "123"]
    held = try_lock(lock_path(cache.path, cache.folder.name, "2" * 64))
    assert held is not None
    try:
        assert discard_parts(cache.path, "org/repo", blobs) == 7
    finally:
        os.close(held)
    # It has this one and comes back for it at its end only.
    assert cache.has("1")
    assert cache.folder.part("2" * 64).exists()
    assert discard_parts(cache.path, "org/repo", blobs) == 17


def test_while_snapshots_are_made_only_parts_are_given_up(cache: Cache) -> None:
    cache.folder.blob("1" * 64).write_bytes(b"x" * 10)
    cache.folder.part("2" * 64).write_bytes(b"x" * 7)
    held = try_lock(publish_lock(cache.folder))
    assert held is not None
    try:
        assert discard_parts(cache.path, "org/repo", ["1" * 64, "2" * 64]) == 7
    finally:
        os.close(held)
    assert cache.has("1")
    assert discard_parts(cache.path, "org/repo", ["1" * 64, "2" * 64]) == 10
