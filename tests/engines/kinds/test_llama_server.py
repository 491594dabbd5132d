import os
from pathlib import Path

import pytest

from llama_router.engines.kinds.llama_server import find_llama_server, is_llama_server


def program(directory: Path, *, mode: int = 0o755) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "llama-server"
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_beside_the_router_comes_before_path(tmp_path: Path) -> None:
    beside = program(tmp_path / "bin")
    program(tmp_path / "path")
    router = tmp_path / "bin" / "llama-router"
    assert find_llama_server(router, search_path=str(tmp_path / "path")) == beside


def test_beside_the_link_comes_before_beside_the_file(tmp_path: Path) -> None:
    real = tmp_path / "venv" / "bin" / "llama-router"
    beside_file = program(real.parent)
    real.touch()
    link = tmp_path / "bin" / "llama-router"
    link.parent.mkdir()
    link.symlink_to(real)
    assert find_llama_server(link, search_path="") == beside_file
    beside_link = program(link.parent)
    assert find_llama_server(link, search_path="") == beside_link


def test_path_is_searched_in_its_order(tmp_path: Path) -> None:
    first, second = program(tmp_path / "a"), program(tmp_path / "b")
    search_path = f"{first.parent}{os.pathsep}{second.parent}"
    assert find_llama_server(tmp_path / "bin" / "r", search_path=search_path) == first


def test_what_cannot_be_run_is_not_found(tmp_path: Path) -> None:
    program(tmp_path / "bin", mode=0o644)
    (tmp_path / "path" / "llama-server").mkdir(parents=True)
    router = tmp_path / "bin" / "llama-router"
    assert find_llama_server(router, search_path=str(tmp_path / "path")) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-server", True),
        ("/opt/llama/bin/llama-server", True),
        ("llama-server.exe", True),
        ("llama-server-wrapper", False),
        ("/llama-server/run", False),
    ],
)
def test_a_llama_server_is_told_by_its_file_name(name: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert is_llama_server(name) is expected
