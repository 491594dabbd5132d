import json
import sys
from pathlib import Path

import pytest

from llama_router.catalog.footprint import Footprint, Need
from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_projector import write_projector
from llama_router.cli.estimate import estimate_memory, table

MIB = 2**20


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the caches of whoever runs this nor their variables."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def config_for(tmp_path: Path, *command: str) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    write_model(models / "sea.gguf", "one two three", name="Sea")
    write_projector(models / "mmproj-sea.gguf")
    config = tmp_path / "config.yaml"
    spawn = {"default_spawn": {"command": list(command)}} if command else {}
    config.write_text(
        json.dumps({"version": "1.0", "router": {"models_dirs": [str(models)]}, **spawn})
    )
    return config


def test_a_file_is_estimated_for_given_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_synthetic(tmp_path / "m.gguf", Shape(kv_heads=2, key_length=512, layers=4))

    assert estimate_memory(str(path), ["-c", "4096", "-np", "1"], as_json=True) == 0

    found = json.loads(capsys.readouterr().out)
    (need,) = (each for each in found["needs"] if each["device"] == "cpu")
    assert need["kv_cache"] == 4096 * 4 * 2 * 512 * 2 * 2
    assert found["total"] == sum(each["total"] for each in found["needs"])
    assert found["lasting"] == sum(each["lasting"] for each in found["needs"])
    assert (found["ctx_tokens"], found["slots"]) == (4096, 1)


def test_people_get_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_synthetic(tmp_path / "m.gguf", Shape(kv_heads=2, key_length=512, layers=4))

    assert estimate_memory(str(path), ["-c", "4096"]) == 0

    output = capsys.readouterr().out
    lines = output.partition("\n\n")[0].splitlines()
    rows = {line.rsplit(None, 1)[0].strip(): line.split()[-1] for line in lines}
    assert rows["MiB"] == "cpu"
    assert rows["kv cache"] == "64.0"
    assert float(rows["total"]) > 64
    assert rows["kept prompts"] == "64.0"
    assert float(rows["in the long run"]) == pytest.approx(float(rows["total"]) + 64, abs=0.11)
    assert "context: 4096 tokens, 4 slots that share it" in output


def test_a_table_has_a_column_for_each_device_and_no_empty_rows() -> None:
    needs = (
        Need(device="cpu", weights=MIB, overhead=20 * MIB),
        Need(device="cuda0", weights=2048 * MIB, compute=MIB // 2),
    )
    found = Footprint(
        needs=needs, ctx_tokens=512, slots=2, is_unified=False, gpu_layers=9, may_grow_bytes=0
    )

    assert table(found).splitlines() == [
        "MiB        cpu   cuda0",
        "weights    1.0  2048.0",
        "compute    0.0     0.5",
        "overhead  20.0     0.0",
        "total     21.0  2048.5",
        "",
        "context: 512 tokens, 2 slots, each with its part",
        "layers on graphics cards: 9, the output's included",
    ]


def test_a_name_is_estimated_for_the_arguments_of_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["llama-server", "-m", "$path", "-mm", "$mmproj", "--port", "$port", "-c", "1024"]
    config = config_for(tmp_path, *command)

    assert estimate_memory("sea", as_json=True, config_path=config) == 0
    of_config = json.loads(capsys.readouterr().out)
    assert estimate_memory("sea", ["-c", "2048"], as_json=True, config_path=config) == 0
    given = json.loads(capsys.readouterr().out)

    assert (of_config["ctx_tokens"], given["ctx_tokens"]) == (1024, 2048)
    assert of_config["needs"][0]["projector"] == given["needs"][0]["projector"] > 0


def test_a_split_file_is_estimated_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole,) = write_model(tmp_path / "whole.gguf", "one two three", name="x")
    parts = write_model(tmp_path / "split.gguf", "one two three", name="x", split=3)

    totals = []
    for path in (whole, parts[0]):
        assert estimate_memory(str(path), as_json=True) == 0
        totals.append(json.loads(capsys.readouterr().out)["total"])

    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    ("model", "arguments", "status", "words"),
    [
        ("nobody", [], 2, "neither a file nor a model"),
        ("sea", ["-c", "many"], 2, "option -c does not take 'many'"),
        ("broken.gguf", [], 1, "not a GGUF file"),
        ("sea", ["-md", "/missing.gguf"], 1, "cannot be read"),
    ],
)
def test_refusals_are_one_line(
    model: str,
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_for(tmp_path)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"nothing")
    name = str(broken) if model == broken.name else model

    assert estimate_memory(name, arguments, config_path=config) == status

    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_a_config_that_cannot_be_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("router: 5\n")

    assert estimate_memory("sea", config_path=config) == 2
    assert str(config) in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a script here")
def test_what_llama_cpp_says_can_be_set_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What llama-fit-params of b11434 printed.
    printed = "0.00.004.230 I llama_fit_params: printing estimated memory in MiB\nHost 747 48 32 \n"
    program = tmp_path / "bin" / "llama-fit-params"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -SE\nprint({printed!r}, end='')\n")
    program.chmod(0o755)
    path = str(write_synthetic(tmp_path / "m.gguf", Shape()))

    monkeypatch.setenv("PATH", str(tmp_path))
    assert estimate_memory(path, compare=True) == 1
    missing = capsys.readouterr()
    monkeypatch.setenv("PATH", str(program.parent))
    assert estimate_memory(path, compare=True) == 0
    for_people = capsys.readouterr().out
    assert estimate_memory(path, compare=True, as_json=True) == 0
    for_programs = json.loads(capsys.readouterr().out)
    program.write_text(f"#!{sys.executable} -SE\nprint('hello')\n")
    assert estimate_memory(path, compare=True) == 1
    garbled = capsys.readouterr()

    assert "total" in missing.out
    assert "no llama-fit-params" in missing.err
    assert [line.split()[-1] for line in for_people.splitlines()[-5:-2]] == [
        "747.0",
        "48.0",
        "32.0",
    ]
    assert for_programs["fit_params"]["cpu"] == {
        "model": 747 * MIB,
        "context": 48 * MIB,
        "compute": 32 * MIB,
    }
    assert "not understood: it has no line for the RAM" in garbled.err


def test_of_a_model_without_a_file_it_says_who_knows_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    model = {"name": "vllm", "memory": "1GiB", "spawn": {"command": ["vllm", "$port"]}}
    config.write_text(json.dumps({"version": "1.0", "models": [model]}))

    assert estimate_memory("vllm", config_path=config) == 2
    assert "`llama-router plan` says what the router reckons with" in capsys.readouterr().err
