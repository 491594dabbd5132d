import pytest

from llama_router.config.importers.llama_server_options import Option, find_option


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
    }.items(),
)
def test_options_are_found_by_all_of_their_names(name: str, option: Option) -> None:
    assert find_option(name) == option


@pytest.mark.parametrize("name", ["ctx", "C ", "", "CTX-SIZE", "LLAMA_ARG_NO_CTX_SIZE", "mmap"])
def test_what_is_no_option_is_not_found(name: str) -> None:
    assert find_option(name) is None
