import os
import sys
from pathlib import Path

import pytest

from llama_router.cli.parameter_check import parameter_problems
from llama_router.config.load import load
from llama_router.engines.kinds.embedded import embedded_available


def loaded_from(folder: Path, text: str) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(text)
    return [str(one).removeprefix(f"{path}:") for one in parameter_problems(load(path))]


@pytest.mark.skipif(sys.platform == "win32", reason="programs are scripts here")
def test_the_llama_server_that_is_found_says_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "llama-server"
    program.write_text(
        "#!/bin/sh\necho '----- common params -----'\n"
        "echo '-c,    --ctx-size N                     size of the prompt context (default: 0)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "llama-router")])
    said = loaded_from(tmp_path, "models:\n  - name: a\n    parameters:\n      ctx-sise: 1\n")
    (problem,) = said
    assert problem.startswith("4:7: models[0].parameters.ctx-sise: ctx-sise is not an option")
    assert problem.endswith(" (did you mean ctx-size?)")
    assert loaded_from(tmp_path, "defaults: {parameters: {ctx-size: 1}}\n") == []


@pytest.mark.skipif(not embedded_available(), reason="no embedded engine")
def test_without_one_it_is_the_embedded_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "llama-router")])
    (said,) = loaded_from(tmp_path, "defaults: {parameters: {ctx-sise: 1, threads: 2}}\n")
    assert said.endswith("(did you mean ctx-size?)")
