from pathlib import Path

import pytest

from llama_router.engines.embedded.flags import Adapter, Constant, FlagError, parse_flags
from llama_router.engines.embedded.table import TABLE


def values(*arguments: str) -> dict[str, object]:
    return parse_flags(arguments, TABLE).values


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "/m.gguf"], {"model.path": "/m.gguf"}),
        (["-c", "4096"], {"n_ctx": 4096}),
        (["--ctx_size", "4096"], {"n_ctx": 4096}),
        (["--seed", "-1"], {"sampling.seed": 2**32 - 1}),
        (["-ngl", "all"], {"n_gpu_layers": -2}),
        (["--jinja"], {"use_jinja": True}),
        (["--no-jinja"], {"use_jinja": False}),
        (["--no-kv-offload"], {"no_kv_offload": True}),
        (["--host", "127.0.0.1,::1"], {"hostnames": ("127.0.0.1", "::1")}),
        (["--timeout", "9"], {"timeout_read": 9, "timeout_write": 9}),
        (["-fitt", "512"], {"fit_params_target": (512 * 1024 * 1024,)}),
        (["--rope-scale", "4"], {"rope_freq_scale": 0.25}),
        (["-ctk", "q8_0"], {"cache_type_k": Constant("ggml_type", "GGML_TYPE_Q8_0")}),
        (["--chat-template-kwargs", '{"a": true}'], {"default_template_kwargs": {"a": "true"}}),
        (["--lora", "a", "--lora-scaled", "C:b:0.5"],
         {"lora_adapters": (Adapter("a", 1.0), Adapter("C:b", 0.5))}),
        (["-c", "1", "-c", "2"], {"n_ctx": 2}),
    ],
)  # fmt: skip
def test_flags_become_settings(arguments: list[str], expected: dict[str, object]) -> None:
    assert values(*arguments) == expected


def test_reranking_sets_all_that_it_needs() -> None:
    rank = Constant("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK")
    assert values("--reranking") == {"embedding": True, "pooling_type": rank}


def test_an_optional_value_may_be_left_out() -> None:
    on = Constant("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_ENABLED")
    off = Constant("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_DISABLED")
    assert values("-fa", "--jinja") == {"flash_attn_type": on, "use_jinja": True}
    assert values("-fa", "off") == {"flash_attn_type": off}
    assert values("--flash-attn") == {"flash_attn_type": on}


def test_expert_layers_add_to_other_overrides() -> None:
    overrides = values("-ot", "a=CPU", "--n-cpu-moe", "2")["tensor_buft_overrides"]
    assert overrides == (
        "a=CPU",
        r"blk\.0\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU",
        r"blk\.1\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU",
    )


def test_sampling_flags_are_marked_as_the_users_choice() -> None:
    marks = parse_flags(["--temp", "0", "--top-k", "1", "--keep", "2"], TABLE).marks
    assert marks == {"TEMP", "TOP_K"}


def test_a_template_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages }}")
    assert values("--chat-template-file", str(file)) == {"chat_template": "{{ messages }}"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-flag"], "option --no-such-flag .* llama-server"),
        (["--mlock"], "option --mlock .* llama-server"),
        (["--hf-repo", "a/b"], "option --hf-repo .* llama-server"),
        (["--ctx-size=512"], "as the next argument"),
        (["model.gguf"], "unexpected argument 'model.gguf'"),
        (["--ctx-size"], "option --ctx-size needs a value"),
        (["--ctx-size", "many"], "--ctx-size does not take 'many': .* whole number"),
        (["--ctx-size", "99999999999"], "too large"),
        (["--temp", "hot"], "--temp does not take 'hot': it has to be a number"),
        (["--cache-type-k", "q9"], "one of f32, f16"),
        (["--flash-attn", "maybe"], "one of on, off, auto"),
        (["--rope-scale", "0"], "must not be zero"),
        (["--seed", "x"], "whole number"),
        (["--lora-scaled", "a"], "FILE:SCALE"),
        (["--n-cpu-moe", "-1"], "between 0"),
        (["--chat-template-kwargs", "[1]"], "JSON object"),
        (["--chat-template-kwargs", "[" * 100_000], "JSON object"),
        (["--chat-template-file", "/no/such/file"], "cannot read '/no/such/file': No such file"),
    ],
)
def test_what_cannot_be_taken_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        values(*arguments)


def test_a_model_given_as_a_template_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with file.open("wb") as sparse:
        sparse.truncate(2**30)
    with pytest.raises(FlagError, match="more than"):
        values("--chat-template-file", str(file))


def test_no_name_is_in_the_table_twice() -> None:
    names = [name for flag in TABLE for name in flag.names]
    assert sorted(names) == sorted(set(names))
