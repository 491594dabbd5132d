import errno
import hashlib
from pathlib import Path

import msgspec
import pytest

from llama_router.hub import part as parts
from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder
from llama_router.hub.part import Part, disk_error, part_bytes, remove_part

DATA = b"0123456789" * 100
BLOB = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> RepoFolder:
    return RepoFolder(tmp_path, "org/repo")


def opened(folder: RepoFolder, size: int = len(DATA)) -> Part:
    part = Part(folder, BLOB, size)
    part.open()
    return part


def found_bytes(folder: RepoFolder) -> int:
    part = opened(folder)
    part.close()
    return part.have_bytes


def test_it_goes_on_where_it_was_and_becomes_the_blob(folder: RepoFolder) -> None:
    part = opened(folder)
    part.tag('"etag"')
    part.write(DATA[:300])
    part.close()
    assert part_bytes(folder, BLOB) == 300
    part = opened(folder)
    assert (part.have_bytes, part.etag) == (300, '"etag"')
    assert not part.is_right()
    part.write(DATA[300:])
    assert part.is_right()
    part.finish()
    assert [path.name for path in folder.blobs.iterdir()] == [BLOB]
    assert folder.blob(BLOB).read_bytes() == DATA


def test_after_a_power_cut_only_what_was_on_the_disk_counts(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SYNC_EVERY_BYTES", 200)
    part = opened(folder)
    part.write(DATA[:250])
    part.write(DATA[250:300])
    part.close()
    assert found_bytes(folder) == 300
    monkeypatch.setattr(parts, "_boot_id", lambda: "another boot")
    assert found_bytes(folder) == 250


def test_what_has_no_journal_of_ours_is_begun_anew(folder: RepoFolder) -> None:
    part = opened(folder)
    part.write(DATA[:300])
    part.close()
    folder.journal(BLOB).write_text("{")
    assert found_bytes(folder) == 0


def test_a_part_of_another_size_is_begun_anew(folder: RepoFolder) -> None:
    part = opened(folder, 500)
    part.write(DATA[:300])
    part.close()
    assert found_bytes(folder) == 0
    part = opened(folder)
    part.write(DATA)
    part.close()
    folder.part(BLOB).write_bytes(DATA + b"more")
    assert found_bytes(folder) == 0


def test_a_link_in_its_place_is_not_followed(folder: RepoFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder.prepare()
    folder.part(BLOB).symlink_to(outside)
    with pytest.raises(HubError) as raised:
        opened(folder)
    assert raised.value.code == "disk_failed"
    assert outside.read_text() == "mine"


def test_restart_and_remove(folder: RepoFolder) -> None:
    part = opened(folder)
    part.write(b"wrong")
    part.restart('"x"')
    assert (part.have_bytes, part.etag, part_bytes(folder, BLOB)) == (0, '"x"', 0)
    part.write(DATA)
    assert part.is_right()
    part.remove()
    assert list(folder.blobs.iterdir()) == []
    assert remove_part(folder, BLOB) == 0


def test_a_full_disk_has_a_word_of_its_own() -> None:
    full = disk_error(Path("/a/b"), OSError(errno.ENOSPC, "No space left"))
    assert (full.code, "kept" in full.message) == ("disk_full", True)
    assert disk_error(Path("/a/b"), OSError(errno.EIO, "I/O error")).code == "disk_failed"


def test_the_journal_says_little(folder: RepoFolder) -> None:
    opened(folder).close()
    said = msgspec.json.decode(folder.journal(BLOB).read_bytes())
    assert set(said) == {"size_bytes", "synced_bytes", "boot", "etag"}


def test_reading_a_large_part_can_be_given_up(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_READ_BYTES", 10)
    part = opened(folder)
    part.write(DATA[:300])
    part.close()
    part = Part(folder, BLOB, len(DATA))
    part.abandon()
    part.open()
    part.close()
    assert part.have_bytes == 0
    # On the disk it is all there.
    assert found_bytes(folder) == 300
