"""The table against the two programs that it stands between."""

import re
import subprocess
from types import ModuleType
from typing import Any

import pytest

from llama_router.engines.embedded.apply import make_parameters
from llama_router.engines.embedded.flags import Flag, FlagError, Settings, parse_flags
from llama_router.engines.embedded.table import TABLE
from tests.support.tools import llama_server_path, need_embedded

# A value that each option takes; options not named here take a number.
_SAMPLES = {
    "--alias": "a,b", "--tags": "a,b", "--host": "127.0.0.1", "--model": "m", "--mmproj": "m",
    "--split-mode": "row", "--tensor-split": "3,1", "--load-mode": "mmap+mlock",
    "--lazy-mode": "on", "--numa": "isolate", "--override-tensor": "a=CPU,b=CPU",
    "--lora": "a,b", "--lora-scaled": "a:0.5", "--cache-type-k": "q8_0", "--cache-type-v": "bf16",
    "--flash-attn": "auto", "--rope-scaling": "yarn", "--chat-template": "x",
    "--chat-template-file": __file__, "--chat-template-kwargs": '{"a": 1}',
    "--reasoning-format": "none", "--reasoning": "off", "--pooling": "mean", "--api-key": "k",
    "--samplers": "top_k;temperature", "--spec-type": "ngram-mod", "--fit": "off",
    "--spec-draft-type-k": "f16", "--spec-draft-type-v": "f16",
    "--spec-draft-device": "none", "--mmproj-device": "none",
}  # fmt: skip


@pytest.fixture
def xllamacpp() -> ModuleType:
    need_embedded()
    import xllamacpp

    module: ModuleType = xllamacpp
    return module


def parameters(xllamacpp: ModuleType, *arguments: str) -> Any:  # noqa: ANN401 - untyped
    return make_parameters(xllamacpp, parse_flags(arguments, TABLE))


@pytest.mark.embedded
@pytest.mark.parametrize("flag", TABLE, ids=lambda flag: flag.names[0])
def test_xllamacpp_takes_every_setting_of_the_table(xllamacpp: ModuleType, flag: Flag) -> None:
    name = flag.names[-1]
    sample = next((_SAMPLES[known] for known in flag.names if known in _SAMPLES), "1")
    arguments = [name] if flag.read is None else [name, sample]
    settings = parse_flags(arguments, TABLE)
    assert settings.values
    parameters = make_parameters(xllamacpp, settings)
    for path in settings.values:
        held = parameters
        for step in path.split("."):
            held = getattr(held, step)
        assert held is not None


@pytest.mark.embedded
def test_settings_arrive_where_they_belong(xllamacpp: ModuleType) -> None:
    made = parameters(
        xllamacpp,
        *("--ctx-size", "512", "--alias", "a,b", "--temp", "0.5", "--threads", "3", "--port", "1"),
        *("--cache-type-k", "q8_0", "--tensor-split", "3,1", "--lora-scaled", "l:0.5"),
        *("--model-draft", "d", "-ot", "a=CPU,b=CPU", "--fit-target", "7"),
    )
    assert (made.n_ctx, made.port, made.cpuparams.n_threads) == (512, 1, 3)
    assert made.model_alias == {"a", "b"}
    assert made.sampling.temp == pytest.approx(0.5)
    assert made.sampling.user_sampling_config == 64
    assert made.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert made.tensor_split[:3] == [3.0, 1.0, 0.0]
    assert [(adapter.path, adapter.scale) for adapter in made.lora_adapters] == [("l", 0.5)]
    assert made.speculative.draft.mparams.path == "d"
    assert made.tensor_buft_overrides == "a=CPU,b=CPU"
    assert set(made.fit_params_target) == {7 * 1024 * 1024}


@pytest.mark.embedded
def test_what_llama_cpp_refuses_is_named(xllamacpp: ModuleType) -> None:
    with pytest.raises(FlagError, match="tensor_buft_overrides"):
        parameters(xllamacpp, "-ot", "a=NOWHERE")
    with pytest.raises(FlagError, match="at most"):
        parameters(xllamacpp, "--tensor-split", ",".join(["1"] * 1000))
    with pytest.raises(FlagError, match="no_such_setting"):
        make_parameters(xllamacpp, Settings({"no_such_setting": 1}, frozenset()))


@pytest.mark.embedded
def test_slots_are_chosen_as_llama_server_does(xllamacpp: ModuleType) -> None:
    assert parameters(xllamacpp).n_parallel == -1
    assert parameters(xllamacpp, "-np", "2").n_parallel == 2


@pytest.mark.llama_server
def test_the_table_has_llama_servers_names() -> None:
    help_text = subprocess.run(
        [llama_server_path(), "--help"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    # An option's names are at the start of its line, before the description's column.
    heads = "\n".join(line for line in help_text.splitlines() if line.startswith("-"))
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", heads))
    missing = [name for flag in TABLE for name in flag.names if name not in known]
    assert missing == []
