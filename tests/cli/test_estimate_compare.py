import sys
from pathlib import Path

import pytest

from llama_router.catalog.footprint import estimate, read_model
from llama_router.catalog.footprint_arguments import parse_arguments
from llama_router.catalog.footprint_fit import (
    Parts,
    estimated_parts,
    fit_arguments,
    parse_fit,
)
from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.cli.estimate_compare import (
    FIT_PARAMS,
    CompareError,
    comparison,
    find_fit_params,
    run_fit_params,
)
from tests.support.tools import llama_server_path

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are scripts here")


def program(folder: Path, text: str, *, name: str = FIT_PARAMS) -> Path:
    path = folder / name
    folder.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable} -SE\nimport os, sys, time\n{text}\n")
    path.chmod(0o755)
    return path


def test_it_is_found_beside_llama_server_and_else_on_the_path(tmp_path: Path) -> None:
    beside = program(tmp_path / "llama", "")
    elsewhere = program(tmp_path / "bin", "")
    server = program(tmp_path / "llama", "", name="llama-server")
    link = tmp_path / "linked"
    link.symlink_to(server)
    path = str(elsewhere.parent)

    assert find_fit_params(server, path) == beside
    assert find_fit_params(link, path) == beside
    assert find_fit_params(tmp_path / "other" / "llama-server", path) == elsewhere
    assert find_fit_params(None, path) == elsewhere
    with pytest.raises(CompareError, match="there is no llama-fit-params"):
        find_fit_params(None, str(tmp_path))


def test_its_output_is_returned_and_settings_in_the_environment_are_not_heard(
    tmp_path: Path,
) -> None:
    path = program(
        tmp_path, "print(sys.argv[1:], 'LLAMA_ARG_CTX_SIZE' in os.environ, os.environ['X'])"
    )
    environment = {"LLAMA_ARG_CTX_SIZE": "5", "X": "here"}

    assert run_fit_params(path, ["-c", "1"], environment=environment) == "['-c', '1'] False here\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sys.exit(3)", "ended with status 3: it said nothing"),
        ("sys.exit('error: invalid argument: -x')", "ended with status 1: error: invalid argument"),
        ("sys.exit('\\x1b[31m' + 'x' * 9999)", r"status 1: \?\[31mx{195}$"),
        ("print('what():  failed', flush=True); os.abort()", r"by signal 6: what\(\):  failed"),
        ("os.write(1, b'\\xff\\xfe\\n'); sys.exit(1)", "ended with status 1: "),
        ("while True: os.write(1, b'x' * 65536)", "printed more than 1 MiB"),
    ],
)
def test_what_goes_wrong_is_said(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=words):
        run_fit_params(program(tmp_path, text), [])


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    path = program(tmp_path, "print(os.getpid(), flush=True); time.sleep(1000)")

    with pytest.raises(CompareError, match=r"did not end within 0\.2 s"):
        run_fit_params(path, [], timeout_s=0.2)


def test_one_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="cannot be started"):
        run_fit_params(tmp_path / "missing", [])


def test_both_stand_side_by_side(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "m.gguf", Shape(key_length=512, layers=4))
    parsed = parse_arguments(["-c", "4096"])
    found = estimate(read_model(path, parsed), parsed)

    lines = comparison(found, {"cpu": Parts(3 * MIB, 64 * MIB, MIB), "cuda0": Parts(0, 0, 7)})

    rows = [line.split() for line in lines.splitlines()]
    assert rows[0] == ["MiB", "estimated", "llama-fit-params"]
    assert rows[2] == ["cpu", "context", "64.0", "64.0"]
    assert rows[4] == ["cuda0", "model", "-", "0.0"]
    assert "slots that share a context" in lines


@pytest.mark.llama_server
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        (Shape(layers=24, heads=16, kv_heads=8, key_length=256), "-c 4096"),
        (Shape(layers=8, heads=8, kv_heads=8, key_length=256), "-c 8192 -np 2 -ctk q8_0 -fa off"),
        (
            Shape(
                architecture="gemma3",
                layers=24,
                heads=8,
                kv_heads=8,
                key_length=256,
                sliding_window=512,
            ),
            "-c 8192 -np 1",
        ),
        (Shape(architecture="mamba", layers=8, embedding_length=512, state_size=128), "-np 4"),
    ],
)
def test_estimates_are_near_what_the_real_one_says(
    shape: Shape, arguments: str, tmp_path: Path
) -> None:
    real = llama_server_path().with_name(FIT_PARAMS)
    if not real.exists():
        pytest.skip("no llama-fit-params beside llama-server")
    path = write_synthetic(tmp_path / "m.gguf", shape)
    parsed = parse_arguments(arguments.split())
    found = estimate(read_model(path, parsed), parsed)

    fitted = parse_fit(run_fit_params(real, fit_arguments(path, parsed, found)))["cpu"]

    ours = estimated_parts(found)["cpu"]
    # It cuts sizes down to whole MiB.
    assert 0 <= ours.model - fitted.model < MIB
    assert -MIB // 100 <= ours.context - fitted.context < MIB
    # These heads are far wider than their embeddings, which no real model's are.
    assert 0.95 * fitted.compute - MIB <= ours.compute <= 1.25 * fitted.compute + MIB
