from pathlib import Path

import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder, replace_file

COMMIT, BLOB = "a" * 40, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RepoFolder:
    made = RepoFolder(tmp_path, "org/repo")
    made.prepare()
    made.blob(BLOB).write_bytes(b"content")
    return made


def test_links_are_relative_and_made_once(folder: RepoFolder) -> None:
    path = folder.link(COMMIT, "deep/er/m.gguf", BLOB)
    assert path.readlink() == Path(f"../../../../blobs/{BLOB}")
    assert path.read_bytes() == b"content"
    assert folder.link(COMMIT, "deep/er/m.gguf", BLOB) == path
    assert [one.name for one in path.parent.iterdir()] == ["m.gguf"]


def test_where_there_are_no_links_the_file_is_copied(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError("no right to make links")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = folder.link(COMMIT, "m.gguf", BLOB)
    assert not path.is_symlink()
    assert path.read_bytes() == b"content"


def test_what_a_killed_process_left_is_replaced(folder: RepoFolder) -> None:
    snapshot = folder.snapshots / COMMIT
    snapshot.mkdir()
    (snapshot / f".{BLOB[:16]}.llama-router.tmp").symlink_to("nowhere")
    path = folder.link(COMMIT, "m.gguf", BLOB)
    assert [one.name for one in snapshot.iterdir()] == [path.name]


@pytest.mark.parametrize("path", ["../../x", "/x", "a/../../b", "a\\b"])
def test_nothing_is_written_elsewhere(folder: RepoFolder, path: str) -> None:
    with pytest.raises(HubError):
        folder.link(COMMIT, path, BLOB)
    with pytest.raises(HubError):
        folder.link("../x", "m.gguf", BLOB)
    with pytest.raises(HubError):
        folder.blob("../x")


def test_a_folder_that_leads_out_is_not_written_into(folder: RepoFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    snapshot = folder.snapshots / COMMIT
    snapshot.mkdir()
    (snapshot / "deep").symlink_to(outside)
    with pytest.raises(HubError, match="leads out"):
        folder.link(COMMIT, "deep/m.gguf", BLOB)
    assert list(outside.iterdir()) == []


def test_main(folder: RepoFolder) -> None:
    assert folder.main_commit() == ""
    folder.set_main(COMMIT)
    assert (folder.refs / "main").read_text() == COMMIT
    assert folder.main_commit() == COMMIT
    (folder.refs / "main").write_text("../../etc")
    assert folder.main_commit() == ""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_has_looks_at_the_size(folder: RepoFolder) -> None:
    assert folder.has(BLOB, 7)
    assert not folder.has(BLOB, 8)
    assert not folder.has("c" * 64, 7)
