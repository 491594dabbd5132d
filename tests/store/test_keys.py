import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llama_router.store import keys
from llama_router.store.keys import KeyFile, KeyFileError, KeyNameTakenError, KeyRecord
from llama_router.store.lock import FileLock

DEADLINE_S = 20.0


def record(number: int, **changes: object) -> KeyRecord:
    values = {
        "id": f"id{number}",
        "name": f"key {number}",
        "digest": hashlib.sha256(b"%d" % number).hexdigest(),
        "scopes": ("inference",),
        "created_s": 1.7e9,
    }
    return KeyRecord(**(values | changes))  # type: ignore[arg-type]  # as the test means


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_keys_outlive_the_router_and_are_nobody_elses_business(path: Path) -> None:
    full = record(1, models=("qwen*",), requests_per_minute=5, max_in_flight=2, priority=3)
    file = KeyFile(path)
    assert file.keys == ()
    file.add(full)
    file.add(record(2))
    assert KeyFile(path).keys == (full, record(2))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.revoke("id1")
    assert KeyFile(path).keys == (record(2),)
    assert sorted(one.name for one in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_the_time_of_use_is_kept_and_nothing_else_changes(path: Path) -> None:
    file = KeyFile(path)
    file.add(record(1))
    file.add(record(2))
    file.used({"id2": 1.8e9, "gone": 1.0})
    assert [one.last_used_s for one in KeyFile(path).keys] == [None, 1.8e9]
    before = path.stat().st_ino
    file.used({"id2": 1.8e9})
    assert path.stat().st_ino == before


def test_two_routers_of_one_folder_do_not_lose_each_others_keys(path: Path) -> None:
    first, second = KeyFile(path), KeyFile(path)
    first.add(record(1))
    second.add(record(2))
    assert second.keys == (record(1), record(2))
    assert [one.id for one in first.keys] == ["id1"]
    first.refresh()
    assert first.keys == second.keys
    lock = FileLock(path.with_name("keys.json.lock"))
    try:
        with pytest.raises(KeyFileError, match="try again"):
            first.revoke("id1")
    finally:
        lock.release()
    first.revoke("id1")
    assert [one.id for one in KeyFile(path).keys] == ["id2"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "keys": []}',
        b'{"version": 1, "keys": [{"id": "a"}]}',
        b'{"version": 1, "keys": "\xff"}',
    ],
)
def test_a_file_that_makes_no_sense_opens_nothing_and_is_left_alone(
    path: Path, text: bytes
) -> None:
    path.write_bytes(text)
    with pytest.raises(KeyFileError, match="make no sense"):
        KeyFile(path)
    assert path.read_bytes() == text


@pytest.mark.parametrize("digest", ["", "00", "x" * 64, "ä" * 64])
def test_a_digest_that_is_none_opens_nothing(path: Path, digest: str) -> None:
    content = {"version": 1, "keys": [msgspec.structs.replace(record(1), digest=digest)]}
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(KeyFileError, match="make no sense"):
        KeyFile(path)


def test_a_name_is_one_keys(path: Path) -> None:
    first, second = KeyFile(path), KeyFile(path)
    first.add(record(1))
    with pytest.raises(KeyNameTakenError, match=f"'{record(1).name}' already"):
        second.add(msgspec.structs.replace(record(2), name=record(1).name))
    twice = (record(1), msgspec.structs.replace(record(2), name=record(1).name))
    path.write_bytes(msgspec.json.encode({"version": 1, "keys": twice}))
    with pytest.raises(KeyFileError, match="two keys have the same name"):
        KeyFile(path)
    path.write_bytes(msgspec.json.encode({"version": 1, "keys": [record(1, name="")]}))
    with pytest.raises(KeyFileError, match="a key has no name"):
        KeyFile(path)


def test_there_is_an_end_to_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX_COUNT", 2)
    monkeypatch.setattr(keys, "_FILE_MAX_BYTES", 2000)
    file = KeyFile(path)
    file.add(record(1))
    file.add(record(2))
    with pytest.raises(KeyFileError, match="revoke some"):
        file.add(record(3))
    path.write_bytes(path.read_bytes() + b" " * 2000)
    with pytest.raises(KeyFileError, match="too long"):
        KeyFile(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_is_said(path: Path) -> None:
    file = KeyFile(path)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(KeyFileError, match="cannot be written"):
            file.add(record(1))
    finally:
        path.parent.chmod(0o700)


def test_a_folder_that_is_gone_is_said_and_no_key_is_there(path: Path) -> None:
    file = KeyFile(path / "nowhere" / "keys.json")
    with pytest.raises(KeyFileError, match="cannot be written"):
        file.add(record(1))
    assert file.keys == ()


_WRITER = """
import sys
from pathlib import Path
from llama_router.store.keys import KeyFile, KeyRecord
file, number = KeyFile(Path(sys.argv[1])), 0
while True:
    number += 1
    file.revoke(f"id{number - 20}")
    name = str(number)
    file.add(KeyRecord(id=f"id{name}", name=name, digest="0" * 64, scopes=(), created_s=1.0))
    print(number, flush=True)
"""


def test_kills_at_random_points_never_break_the_file(path: Path) -> None:
    # pytest-randomly seeds it, and says with what.
    dice = random.Random(random.random())  # noqa: S311 - a test's dice
    for _ in range(4):
        path.unlink(missing_ok=True)
        program = [sys.executable, "-c", _WRITER, str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            written = [int(writer.stdout.readline()) for _ in range(dice.randint(1, 60))][-1]
            writer.kill()
            assert writer.wait(DEADLINE_S) == -getattr(signal, "SIGKILL", 9)
        numbers = sorted(int(one.name) for one in KeyFile(path).keys)
        last = numbers[-1]
        # It may have come far since then, and have revoked what it had said.
        assert last >= written
        assert numbers[0] in (max(1, last - 19), max(1, last - 18))
        assert numbers == [*range(numbers[0], last + 1)]
