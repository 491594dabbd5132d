from pathlib import Path
from typing import Any

import pytest

from llama_router.config.importers.foreign import Foreign, checked_modelfile
from llama_router.config.importers.modelfile import name_of
from llama_router.config.importers.report import Fate
from llama_router.config.problems import ConfigError
from llama_router.config.schema import DEFAULT_COMMAND
from tests.config.importers.stores import stored_model


def of(folder: Path, text: str, **env: str) -> Foreign:
    path = folder / "Modelfile"
    path.write_text(text)
    return checked_modelfile(path, "mine", env, folder)


def entry(foreign: Foreign) -> dict[str, Any]:
    return dict(foreign.native.content["models"][0])


def test_a_file_its_options_and_its_samplers_are_carried(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    foreign = of(
        tmp_path,
        "# a comment\nFROM ./m.gguf\nparameter num_ctx 8192\nPARAMETER temperature 0.7\n"
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop </s>\nPARAMETER use_mmap false\n'
        "PARAMETER tfs_z 1\nPARAMETER nonsense 1\nADAPTER lora.gguf\n"
        'SYSTEM """You are\nterse."""\nTEMPLATE "{{ .Prompt }}"\nLICENSE mine\n'
        "MESSAGE user hello\n",
    )
    assert entry(foreign) == {
        "name": "mine",
        "path": str(tmp_path / "m.gguf"),
        "parameters": {
            "ctx-size": 8192,
            "temp": 0.7,
            "load-mode": "none",
        },
        "spawn": {"command": [*DEFAULT_COMMAND, "--lora", str(tmp_path / "lora.gguf")]},
        "filters": {"set_params": {"stop": ["<|im_end|>", "</s>"]}},
    }
    fates = {note.key: note.fate for note in foreign.report.notes}
    for lost in ("SYSTEM", "TEMPLATE", "LICENSE", "MESSAGE", "PARAMETER tfs_z"):
        assert fates[lost] is Fate.NOT_CARRIED
    assert fates["PARAMETER nonsense"] is Fate.UNKNOWN
    assert all(note.why for note in foreign.report.lost)
    lines = {note.key: note.line for note in foreign.report.notes}
    assert (lines["SYSTEM"], lines["TEMPLATE"]) == (11, 13)


def test_models_of_ollamas_store_are_found_there(tmp_path: Path) -> None:
    blob = stored_model(tmp_path / "store", "llama3", "8b", with_projector=True)
    foreign = of(tmp_path, "FROM llama3:8b\n", OLLAMA_MODELS=str(tmp_path / "store"))
    assert entry(foreign)["path"] == str(blob)
    assert entry(foreign)["mmproj"].endswith("sha256-" + "b" * 64)


def test_models_of_the_hub_are_named_as_there(tmp_path: Path) -> None:
    foreign = of(tmp_path, "FROM hf.co/org/name-GGUF:q4_k_m\n")
    assert entry(foreign) == {
        "name": "org/name-GGUF:Q4_K_M",
        "state": "auto",
        "aliases": ["mine"],
    }
    assert "llama-router pull org/name-GGUF:Q4_K_M" in foreign.report.notes[0].why


def test_instructions_of_newer_ollamas_are_known(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    foreign = of(
        tmp_path,
        "FROM ./m.gguf\nRENDERER qwen3-coder\nPARSER qwen3-coder\nREQUIRES 0.14.0\n"
        "CAPABILITY vision\nDRAFT ./d.gguf\nADAPTER ./l.gguf\nPARAMETER draft_num_predict 4\n"
        'SYSTEM "You are\nMario"\nPARAMETER stop "a\nb"\n',
    )
    (entry,) = foreign.native.content["models"]
    files = ["--spec-draft-model", str(tmp_path / "d.gguf"), "--lora", str(tmp_path / "l.gguf")]
    assert entry["spawn"]["command"][-4:] == files
    assert entry["parameters"] == {"spec-draft-n-max": 4}
    assert entry["filters"] == {"set_params": {"stop": ["a\nb"]}}
    lost = {note.key for note in foreign.report.of(Fate.NOT_CARRIED)}
    assert lost == {"RENDERER", "PARSER", "REQUIRES", "CAPABILITY", "SYSTEM"}


@pytest.mark.parametrize(
    "text",
    [
        "FROM ./m-*-of-*.gguf\n",
        "FROM ./m-00001-of-00002.gguf\nFROM ./m-00002-of-00002.gguf\n",
        "FROM ./m-00002-of-00002.gguf\nFROM ./m-00001-of-00002.gguf\n",
    ],
)
def test_a_split_model_is_its_first_file(tmp_path: Path, text: str) -> None:
    for number in (1, 2):
        (tmp_path / f"m-{number:05}-of-00002.gguf").touch()
    (entry,) = of(tmp_path, text).native.content["models"]
    assert entry["path"] == str(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("PARAMETER num_ctx 1\n", "FROM is missing"),
        ("FROM .\n", "Modelfile:1:1: FROM: is a folder"),
        ("FROM nowhere\n", "Modelfile:1:1: FROM: nowhere is neither a file nor a model in"),
        (
            "\nFROM ../../etc/x:y\n",
            "Modelfile:2:1: FROM: ../../etc/x:y is neither a file nor a name",
        ),
        ("FROM x\nBECAUSE y\n", "Modelfile:2:1: is none of FROM, PARAMETER"),
        (
            "FROM m.gguf\nPARAMETER num_ctx many\n",
            "Modelfile:2:1: PARAMETER num_ctx: must be a num",
        ),
    ],
)
def test_faults_are_told_at_their_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "m.gguf").touch()
    with pytest.raises(ConfigError) as caught:
        of(tmp_path, text)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("coder/Modelfile", "coder"),
        ("Modelfile.coder", "coder"),
        ("coder-7b.Q4.Modelfile", "coder-7b.Q4"),
    ],
)
def test_a_modelfile_says_what_its_model_is_called(path: str, name: str) -> None:
    assert name_of(Path("/models") / path) == name
