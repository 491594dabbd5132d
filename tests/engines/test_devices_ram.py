from pathlib import Path, PurePosixPath

import psutil
import pytest

from llama_router.engines import devices_ram
from llama_router.engines.devices_ram import cgroup_free_bytes, cgroup_path, ram

MIB = 2**20


def test_the_cgroup_is_found_among_those_of_version_1() -> None:
    text = "12:memory:/old\n1:name=systemd:/x\n0::/system.slice/llama.service\n"

    assert cgroup_path(text) == PurePosixPath("system.slice/llama.service")
    assert cgroup_path("0::/\n") == PurePosixPath()
    assert cgroup_path("12:memory:/old\n") is None


def test_cached_files_make_way() -> None:
    stat = "anon 100\ninactive_file 200\nactive_file 50\nodd line here\n"

    assert cgroup_free_bytes(1000, 600, stat) == 650
    assert cgroup_free_bytes(1000, 600, "") == 400
    assert cgroup_free_bytes(1000, 1500, "") == 0
    assert cgroup_free_bytes(1000, 600, "inactive_file x\n") == 400


def test_the_tightest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = tmp_path / "fs" / "a", tmp_path / "fs" / "a" / "b"
    inner.mkdir(parents=True)
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("5\n")
    (outer / "memory.max").write_text(f"{64 * MIB}\n")
    (outer / "memory.current").write_text(f"{40 * MIB}\n")
    monkeypatch.setattr(devices_ram, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(devices_ram, "_OWN_CGROUPS", own)

    assert ram() == (64 * MIB, 24 * MIB)


def test_without_limits_it_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices_ram, "_OWN_CGROUPS", tmp_path / "missing")

    assert ram()[0] == psutil.virtual_memory().total
