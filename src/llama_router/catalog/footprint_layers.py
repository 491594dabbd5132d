"""What each layer of a model keeps for every token, and for every sequence.

Source: ``llama_model::create_memory``, ``src/llama-hparams.cpp`` and ``load_arch_hparams`` in
``src/models/`` of llama.cpp b11434.
"""

from collections.abc import Sequence

import msgspec

from llama_router.catalog.gguf_reader import GgufInfo

# LLAMA_MAX_LAYERS of llama-hparams.h: it refuses a header that says more.
_MAX_LAYERS = 512


class Layer(msgspec.Struct, frozen=True):
    """``key_elements`` and ``value_elements``: per token in the KV cache, of the cache's types.

    ``state_elements``: 32-bit floats per sequence in the recurrent state. ``is_windowed``: the
    cache covers the sliding window only.
    """

    key_elements: int = 0
    value_elements: int = 0
    state_elements: int = 0
    is_windowed: bool = False


class _Pattern(msgspec.Struct, frozen=True):
    """Sliding window: all but each ``every``-th layer, which is the last of these or the first.

    ``every`` 1: none unless the file says which. 0: all. ``window`` stands in for one that the
    file does not state. ``stated_only``: without a window in the file there is none.
    """

    every: int
    dense_first: bool = False
    window: int = 0
    stated_only: bool = False


_PATTERNS: dict[str, _Pattern] = {
    "afmoe": _Pattern(4, stated_only=True),
    "cohere2": _Pattern(4),
    "cohere2moe": _Pattern(4, dense_first=True),
    "deepseek4": _Pattern(0),
    "dots3note": _Pattern(1),
    "exaone-moe": _Pattern(4, window=128),
    "exaone4": _Pattern(4, window=4096),
    "gemma2": _Pattern(2, window=4096),
    "gemma3": _Pattern(6, stated_only=True),
    "gemma3n": _Pattern(5),
    "gemma4": _Pattern(1),
    "gpt-oss": _Pattern(2),
    "granite_swa": _Pattern(1),
    "laguna": _Pattern(4, dense_first=True, stated_only=True),
    "lfm2": _Pattern(0, stated_only=True),
    "llama4": _Pattern(4, window=8192),
    "maple": _Pattern(1),
    "mellum": _Pattern(4, stated_only=True),
    "mimo2": _Pattern(1),
    "muse-glimmer": _Pattern(4),
    "olmo2": _Pattern(4, stated_only=True),
    "plamo3": _Pattern(8, stated_only=True),
    "smallthinker": _Pattern(4, dense_first=True, stated_only=True),
    "spark2_5": _Pattern(1),
    "step35": _Pattern(1),
}
# Of these the size of the window is fixed, whatever the file says.
_FIXED_WINDOWS = {"llama4": 8192, "smallthinker": 4096}
_EXAONE4_WINDOWED_LAYERS = 64  # only the model with as many layers has a window

_WITHOUT_CACHE = frozenset(
    [
        "bert",
        "clef",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    ]
)
_RECURRENT = frozenset(["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"])
# A layer without heads of keys is recurrent.
_HYBRID_BY_HEADS = frozenset(
    [
        "bailingmoe3",
        "glm5-next",
        "granitehybrid",
        "jamba",
        "kimi-k3",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "plamo2",
    ]
)
# All but each n-th layer are recurrent.
_HYBRID_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_HYBRID_ALL = frozenset({"falcon-h1"})
_WITH_INDEXER = frozenset({"deepseek32", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp"})
_GEMMA3N_OWN_KV_LAYERS = 20
_RWKV_TOKEN_SHIFTS = 2


def layer_count(info: GgufInfo) -> int:
    """How many layers there are, those for predicting several tokens included."""
    return min(info.block_count, _MAX_LAYERS)


def window_tokens(info: GgufInfo) -> int:
    """Size of the sliding window in tokens, as far as llama.cpp uses one; 0 if not."""
    pattern = _PATTERNS.get(info.architecture)
    if pattern is None:
        return 0
    if info.architecture == "exaone4" and info.block_count != _EXAONE4_WINDOWED_LAYERS:
        return 0
    if not info.sliding_window and pattern.stated_only:
        return 0
    return _FIXED_WINDOWS.get(info.architecture) or info.sliding_window or pattern.window


def layers_of(info: GgufInfo, *, draft_head: bool = False) -> tuple[Layer, ...]:
    """Describe what the layers keep; ``draft_head``: those that predict several tokens instead."""
    count = layer_count(info)
    trunk = max(count - _one(info, "nextn_predict_layers"), 0) or count
    if info.architecture in _WITHOUT_CACHE:
        return (Layer(),) * count
    windowed = _windowed(info, count, trunk)
    return tuple(
        _layer(info, index, is_windowed=windowed[index])
        if (index >= trunk) is draft_head
        else Layer()
        for index in range(count)
    )


def _one(info: GgufInfo, key: str, default: int = 0) -> int:
    return max(info.parameters.get(key, (default,)))


def _at(values: Sequence[int], index: int, default: int = 0) -> int:
    if len(values) == 1:
        return values[0]
    return values[index] if index < len(values) else default


def _windowed(info: GgufInfo, count: int, trunk: int) -> list[bool]:
    pattern = _PATTERNS.get(info.architecture)
    if pattern is None or not window_tokens(info):
        return [False] * count
    stated = info.parameters.get("attention.sliding_window_pattern", ())
    if len(stated) > 1:
        return [bool(_at(stated, index)) for index in range(count)]
    every = stated[0] if stated else pattern.every
    if every == 0:
        flags = [True] * trunk
    elif pattern.dense_first:
        flags = [index % every != 0 for index in range(trunk)]
    else:
        flags = [index % every < every - 1 for index in range(trunk)]
    return flags + [False] * (count - trunk)


def _layer(info: GgufInfo, index: int, *, is_windowed: bool) -> Layer:
    recurrent = _is_recurrent_layer(info, index)
    state = _state_elements(info) if recurrent else 0
    if recurrent and info.architecture not in _HYBRID_ALL:
        return Layer(state_elements=state)
    if not _has_own_kv(info, index):
        return Layer(is_windowed=is_windowed)
    kv_heads = _at(info.head_count_kv or info.head_count, index)
    heads = max(info.head_count[:1] or (0,))
    default_length = info.embedding_length // heads if heads else 0
    suffix = "_swa" if is_windowed else ""
    key_length = info.key_length or default_length
    value_length = info.value_length or default_length
    if suffix:
        key_length = _one(info, "attention.key_length_swa", key_length)
        value_length = _one(info, "attention.value_length_swa", value_length)
    is_latent = _one(info, "attention.key_length_mla") and _one(info, "attention.value_length_mla")
    keys = key_length * kv_heads
    if info.architecture in _WITH_INDEXER:
        keys += _one(info, "attention.indexer.key_length")
    return Layer(keys, 0 if is_latent else value_length * kv_heads, state, is_windowed)


def _has_own_kv(info: GgufInfo, index: int) -> bool:
    if info.architecture == "gemma3n":
        return index < _GEMMA3N_OWN_KV_LAYERS
    if info.architecture == "gemma4":
        return index < info.block_count - _one(info, "attention.shared_kv_layers")
    return True


def _is_recurrent_layer(info: GgufInfo, index: int) -> bool:
    if info.architecture in _RECURRENT or info.architecture in _HYBRID_ALL:
        return True
    if info.architecture in _HYBRID_BY_HEADS:
        has_heads = _at(info.head_count_kv, index) > 0
        has_own_feed_forward = (
            info.architecture.startswith("nemotron_h") and _at(info.feed_forward_length, index) > 0
        )
        return not has_heads and not has_own_feed_forward
    interval = _HYBRID_BY_INTERVAL.get(info.architecture)
    if interval is None:
        return False
    stated = info.parameters.get("attention.recurrent_layers", ())
    if len(stated) > 1:
        return bool(_at(stated, index))
    interval = _one(info, "full_attention_interval", interval)
    return interval == 0 or (index + 1) % interval != 0


def _state_elements(info: GgufInfo) -> int:
    """Sum ``n_embd_r`` and ``n_embd_s`` of llama-hparams.cpp."""
    heads = max(info.head_count, default=0)
    if wkv := _one(info, "wkv.head_size"):
        shifts = _one(info, "token_shift_count", _RWKV_TOKEN_SHIFTS)
        return info.embedding_length * (shifts + wkv)
    if shortconv := _one(info, "shortconv.l_cache"):
        return info.embedding_length * (shortconv - 1)
    kernel = _one(info, "ssm.conv_kernel")
    if head := _one(info, "kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * heads * head + head * head * heads
    if info.architecture == "minimax-01":
        return info.key_length * info.key_length * heads
    inner, state = _one(info, "ssm.inner_size"), _one(info, "ssm.state_size")
    convolution = max(kernel - 1, 0) * (inner + 2 * _one(info, "ssm.group_count") * state)
    return convolution + state * inner
