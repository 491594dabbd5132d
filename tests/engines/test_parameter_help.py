import os
import subprocess
from pathlib import Path

import pytest

from llama_router.engines.parameter_help import parse_help
from llama_router.engines.parameters import ParameterKind, ParameterTable
from tests.support.tools import llama_server_path

# Its options, what they take, their defaults and limits; not its sentences.
RECORDED = Path(__file__).parent / "recorded" / "llama-server-b11434-help.txt"


@pytest.fixture(scope="module")
def table() -> ParameterTable:
    return parse_help(RECORDED.read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "kind", "choices"),
    [
        ("ctx-size", ParameterKind.INTEGER, ()),
        ("c", ParameterKind.INTEGER, ()),
        ("n-predict", ParameterKind.INTEGER, ()),
        ("gpu-layers", ParameterKind.INTEGER, ("auto", "all")),
        ("threads-batch", ParameterKind.INTEGER, ()),
        ("seed", ParameterKind.INTEGER, ()),
        ("temp", ParameterKind.NUMBER, ()),
        ("rope-freq-base", ParameterKind.NUMBER, ()),
        ("video-fps", ParameterKind.NUMBER, ()),
        ("flash-attn", ParameterKind.CHOICE, ("on", "off", "auto")),
        ("split-mode", ParameterKind.CHOICE, ("none", "layer", "row", "tensor")),
        ("cpu-strict", ParameterKind.CHOICE, ("0", "1")),
        ("swa-full", ParameterKind.FLAG, ()),
        ("no-host", ParameterKind.FLAG, ()),
        ("override-tensor", ParameterKind.TEXT, ()),
        ("device", ParameterKind.TEXT, ()),
        ("samplers", ParameterKind.TEXT, ()),
    ],
)
def test_options_have_kinds(
    table: ParameterTable, name: str, kind: ParameterKind, choices: tuple[str, ...]
) -> None:
    parameter = table.find(name)
    assert parameter is not None
    assert (parameter.kind, parameter.choices) == (kind, choices)


def test_words_are_read_from_the_description_as_well(table: ParameterTable) -> None:
    types = table.parameters["cache-type-k"].choices
    assert types[:3] == ("f32", "f16", "bf16")
    assert "q8_0" in types
    speculative = table.parameters["spec-type"]
    assert speculative.is_list
    assert "draft-mtp" in speculative.choices


def test_opposites_are_told_from_aliases(table: ParameterTable) -> None:
    unified = table.parameters["kv-unified"]
    assert (unified.aliases, unified.opposites) == (("kvu",), ("no-kv-unified", "no-kvu"))
    assert table.parameters["repack"].opposites == ("no-repack", "nr")
    assert table.parameters["perf"].opposites == ("no-perf",)


def test_ranges_and_defaults_are_read(table: ParameterTable) -> None:
    poll, target = table.parameters["poll"], table.parameters["adaptive-target"]
    assert (poll.minimum, poll.maximum, poll.default) == (0, 100, "50")
    assert (target.minimum, target.maximum) == (0.0, 1.0)
    assert table.parameters["temp"].default == "0.80"
    assert table.parameters["ctx-size"].help == "(default: 0) (env: LLAMA_ARG_CTX_SIZE)"


@pytest.mark.parametrize(
    "name",
    [
        *("host", "port", "model", "m", "alias", "mmproj", "hf-repo", "hf", "hf-token", "hf-file"),
        *("model-url", "docker-repo", "api-key", "api-key-file", "ssl-key-file", "ssl-cert-file"),
        *("api-prefix", "path", "log-file", "log-disable", "lora", "control-vector", "media-path"),
        *("slot-save-path", "chat-template-file", "grammar-file", "json-schema-file", "tools"),
        *("mcp-servers-config", "mcp-servers-json", "agent", "models-dir", "models-preset", "rpc"),
        *("spec-draft-model", "spec-draft-hf", "lookup-cache-static", "log-prompts-dir", "version"),
        *("video-ffmpeg-dir", "gpt-oss-20b-default", "draft-max", "ui-mcp-proxy", "no-agent"),
        *("webui-config-file", "mmproj-url", "cors-origins", "help", "list-devices", "props"),
    ],
)
def test_what_is_the_routers_or_names_files_cannot_be_set(table: ParameterTable, name: str) -> None:
    assert table.find(name) is None
    assert table.check({name: "x"})


def test_no_name_that_could_read_a_file_or_reach_out_is_left(table: ParameterTable) -> None:
    for parameter in table.parameters.values():
        text = f"{parameter.name} {' '.join(parameter.aliases)}"
        for word in ("file", "path", "url", "dir", "key", "token", "hf"):
            assert word not in text.replace("draft-hfd", "").split("-"), text


@pytest.mark.parametrize("text", ["", "x" * 5000, "- \n--\n---", "--a" + ", --b" * 9000, "\0\0"])
def test_anything_else_gives_no_options_or_few(text: str) -> None:
    assert len(parse_help(text).parameters) <= 1


def test_what_the_engine_at_hand_says_is_understood(table: ParameterTable) -> None:
    program = llama_server_path()
    said = subprocess.run(
        [program, "--help"], capture_output=True, check=True, timeout=20, env=dict(os.environ)
    )
    here = parse_help(said.stdout.decode())
    assert len(here.parameters) > 100
    for name in ("ctx-size", "flash-attn", "cache-type-k", "parallel", "temp"):
        assert here.parameters[name].kind is table.parameters[name].kind
