import sys
from pathlib import Path

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.tiny import write_model
from llama_router.config.schema import Config, ModelEntry
from llama_router.engines.launch import LaunchSpec, Readiness
from llama_router.runtime.inspection import problem_of
from llama_router.runtime.roster import RosterModel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are told by their mode")


def model(*parts: Path, mmproj: Path | None = None) -> RosterModel:
    found = CatalogModel(
        id="a",
        path=parts[0] if parts else None,
        source=ModelSource.CONFIG,
        parts=parts if len(parts) > 1 else (),
        mmproj=mmproj,
    )
    return RosterModel(found, Config().default_spawn, ModelEntry(name="a"))


def launch(program: str, path: str = "/usr/bin:/bin") -> LaunchSpec:
    return LaunchSpec(
        model="a",
        generation=0,
        argv=(program, "--port", "1"),
        env={"PATH": path},
        host="127.0.0.1",
        port=1,
        health_path="/health",
        readiness=Readiness.PROBED,
    )


@pytest.fixture
def llama_server(tmp_path: Path) -> str:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_nothing_speaks_against_a_program_and_files_that_are_there(
    tmp_path: Path, llama_server: str
) -> None:
    parts = write_model(tmp_path / "a.gguf", "a few words of it", name="a", split=2)
    assert problem_of(model(*parts, mmproj=parts[0]), launch(llama_server)) == ""
    assert problem_of(model(), launch("sh")) == ""
    # Others have models in folders, or in files of their own.
    (tmp_path / "weights.safetensors").write_bytes(b"{}")
    assert problem_of(model(tmp_path), launch("sh")) == ""
    assert problem_of(model(tmp_path / "weights.safetensors"), launch("sh")) == ""


def test_a_program_must_exist_and_be_one(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for program, problem in (
        ("no-such-engine", "no program no-such-engine on PATH"),
        ("/nowhere/engine", "/nowhere/engine does not exist"),
        (str(tmp_path / "text"), "is not executable"),
        (str(tmp_path), "is not executable"),
    ):
        assert problem in problem_of(model(), launch(program))


@pytest.mark.parametrize("which", ["first part", "second part", "projector"])
@pytest.mark.parametrize("fault", ["gone", "garbage", "empty", "folder"])
def test_all_files_of_a_model_are_looked_at(
    tmp_path: Path, llama_server: str, which: str, fault: str
) -> None:
    files = write_model(tmp_path / "a.gguf", "a few words of it", name="a", split=2)
    files.append(tmp_path / "mmproj.gguf")
    files[2].write_bytes(files[0].read_bytes())
    broken = files[["first part", "second part", "projector"].index(which)]
    broken.unlink()
    if fault == "garbage":
        broken.write_bytes(b"<html>")
    elif fault == "empty":
        broken.touch()
    elif fault == "folder":
        broken.mkdir()
    problem = problem_of(model(*files[:2], mmproj=files[2]), launch(llama_server))
    assert str(broken) in problem
    words = {"gone": "is gone", "folder": "is a folder"}
    assert words.get(fault, "is no GGUF file any more") in problem
