import pytest

from llama_router.catalog.footprint_layers import (
    Layer,
    layers_of,
    window_tokens,
)
from tests.support.headers import header

K = 1024


def windowed(layers: tuple[Layer, ...]) -> str:
    return "".join("w" if layer.is_windowed else "-" for layer in layers)


def test_grouped_heads_and_lengths_of_their_own() -> None:
    # Qwen3-4B: 36 layers, 8 heads of 128, though 2560 / 32 is 80.
    layers = layers_of(
        header("qwen3", layers=36, heads=32, embedding_length=2560, key_length=128, value_length=96)
    )

    assert layers == (Layer(8 * 128, 8 * 96),) * 36


def test_heads_per_layer_none_included() -> None:
    layers = layers_of(header("deci", layers=3, kv_heads=(8, 0, 4)))

    assert [layer.key_elements for layer in layers] == [8 * 128, 0, 4 * 128]


def test_a_file_without_heads_of_keys_has_as_many_as_heads() -> None:
    assert layers_of(header(kv_heads=()))[0] == Layer(8 * 128, 8 * 128)


@pytest.mark.parametrize(
    ("architecture", "layers", "pattern", "expected"),
    [
        ("gemma3", 7, {}, "wwwww-w"),
        ("gemma3", 4, {"attention__sliding_window_pattern": 2}, "w-w-"),
        ("gpt-oss", 4, {}, "w-w-"),
        ("cohere2moe", 5, {}, "-www-"),
        ("gemma4", 3, {"attention__sliding_window_pattern": (1, 0, 1)}, "w-w"),
        ("llama", 4, {}, "----"),
        ("phi3", 4, {}, "----"),
        ("exaone4", 4, {}, "----"),
    ],
)
def test_which_layers_have_a_window(
    architecture: str, layers: int, pattern: dict[str, int | tuple[int, ...]], expected: str
) -> None:
    info = header(architecture, layers=layers, window=512, more=pattern)

    assert windowed(layers_of(info)) == expected


def test_windows_that_llama_cpp_knows_better() -> None:
    assert window_tokens(header("gemma2")) == 4096
    assert window_tokens(header("gemma3")) == 0
    assert window_tokens(header("gemma3", window=1024)) == 1024
    assert window_tokens(header("llama4", window=5)) == 8192
    assert window_tokens(header("exaone4", layers=64)) == 4096


def test_latent_attention_has_keys_only() -> None:
    # DeepSeek-V3: a latent of 512 and 64 of position.
    info = header(
        "deepseek2",
        heads=128,
        kv_heads=1,
        key_length=576,
        value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )

    assert layers_of(info) == (Layer(576, 0),) * 2


def test_shared_and_windowed_keys_of_their_own_length() -> None:
    info = header(
        "gemma4",
        layers=4,
        kv_heads=2,
        key_length=512,
        value_length=512,
        window=512,
        attention__sliding_window_pattern=(1, 0, 1, 0),
        attention__shared_kv_layers=2,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
    )

    assert layers_of(info) == (
        Layer(512, 512, is_windowed=True),
        Layer(1024, 1024),
        Layer(is_windowed=True),
        Layer(),
    )


def test_state_space_models_keep_a_state_and_no_keys() -> None:
    info = header(
        "mamba", heads=0, kv_heads=(), ssm__conv_kernel=4, ssm__inner_size=2 * K, ssm__state_size=16
    )

    assert layers_of(info) == (Layer(state_elements=3 * 2 * K + 16 * 2 * K),) * 2


def test_hybrids_keep_both() -> None:
    state: dict[str, int | tuple[int, ...]] = {
        "ssm__conv_kernel": 4,
        "ssm__inner_size": K,
        "ssm__state_size": 128,
    }
    by_heads = layers_of(header("jamba", kv_heads=(0, 8), more=state))
    by_interval = layers_of(header("qwen3next", layers=8, more=state))
    everywhere = layers_of(header("falcon-h1", more=state))

    assert [bool(layer.state_elements) for layer in by_heads] == [True, False]
    assert [bool(layer.key_elements) for layer in by_heads] == [False, True]
    assert [bool(layer.key_elements) for layer in by_interval] == [False] * 3 + [True] + (
        [False] * 3 + [True]
    )
    assert all(layer.key_elements and layer.state_elements for layer in everywhere)


def test_layers_that_draft_keep_nothing_unless_they_are_asked_for() -> None:
    info = header("glm4moe", layers=3, nextn_predict_layers=1)

    assert [bool(layer.key_elements) for layer in layers_of(info)] == [True, True, False]
    drafting = layers_of(info, draft_head=True)
    assert [bool(layer.key_elements) for layer in drafting] == [False, False, True]


def test_encoders_keep_nothing() -> None:
    assert layers_of(header("bert")) == (Layer(),) * 2


def test_a_header_cannot_ask_for_endless_layers() -> None:
    assert len(layers_of(header(layers=2**40))) == 512


def test_an_interval_of_nothing_leaves_no_layer_with_attention() -> None:
    info = header(
        "qwen3next",
        layers=4,
        ssm__inner_size=64,
        ssm__state_size=16,
        full_attention_interval=0,
    )

    assert all(layer.state_elements and not layer.key_elements for layer in layers_of(info))
