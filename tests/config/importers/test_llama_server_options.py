from pathlib import Path

import pytest

from llama_router.config.importers.llama_server_options import Option, find_option
from llama_router.engines.parameter_help import parse_help
from llama_router.engines.parameters import ParameterKind

HELP = Path(__file__).parents[2] / "engines" / "recorded" / "llama-server-b11434-help.txt"


@pytest.mark.parametrize(
    ("name", "option"),
    {
        "c": Option("ctx-size"),
        "LLAMA_ARG_CTX_SIZE": Option("ctx-size"),
        "n-gpu-layers": Option("gpu-layers"),
        "no-jinja": Option("jinja", is_flag=True, is_negated=True),
        "nkvo": Option("kv-offload", is_flag=True, is_negated=True),
        "kvo": Option("kv-offload", is_flag=True),
        "nr": Option("repack", is_flag=True, is_negated=True),
        "LLAMA_ARG_NO_KV_OFFLOAD": Option("kv-offload", is_flag=True, is_negated=True),
        "no-host": Option("no-host", is_flag=True),
        "no-mmproj": Option("mmproj-auto", is_flag=True, is_negated=True, is_setting=False),
        "lora": Option("lora", is_setting=False),
        "draft-max": Option("spec-draft-n-max", was_renamed=True),
        "LLAMA_ARG_MODEL_DRAFT": Option("spec-draft-model", is_setting=False, was_renamed=True),
        "LLAMA_ARG_DRAFT_P_MIN": Option("spec-draft-p-min", is_number=True, was_renamed=True),
        "temperature": Option("temp", is_number=True),
        "fa": Option("flash-attn", is_switch=True),
    }.items(),
)
def test_options_are_found_by_all_of_their_names(name: str, option: Option) -> None:
    assert find_option(name) == option


@pytest.mark.parametrize("name", ["ctx", "C ", "", "CTX-SIZE", "LLAMA_ARG_NO_CTX_SIZE", "mmap"])
def test_what_is_no_option_is_not_found(name: str) -> None:
    assert find_option(name) is None


def test_what_parameters_may_be_is_known_as_llama_server_lists_it() -> None:
    for parameter in parse_help(HELP.read_text()).parameters.values():
        for name in (parameter.name, *parameter.aliases):
            option = find_option(name)
            assert option is not None, name
            assert (option.name, option.is_setting) == (parameter.name, True)
            assert option.is_flag is (parameter.kind is ParameterKind.FLAG)
            assert option.is_number is (parameter.kind is ParameterKind.NUMBER)
            assert option.is_switch is ({"on", "off"} <= {*parameter.choices})
