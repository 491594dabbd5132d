"""How large llama.cpp makes its buffers for one context.

Sources: the constructors of ``llama_context`` and ``llama_kv_cache(_iswa)`` and
``llama_context::output_reserve`` of llama.cpp b11434. The compute buffer is what ggml's allocator
makes of a graph; its formula is fitted to measurements of that build: within 15 % of them for
dense, mixture-of-experts, latent-attention and state-space models of many shapes.
"""

import msgspec

from llama_router.catalog.footprint_arguments import CACHE_TYPES, LaunchArguments
from llama_router.catalog.footprint_layers import Layer, window_tokens
from llama_router.catalog.gguf_reader import GgufInfo

F32_BYTES = 4
_CELL_PADDING = 256
_AUTOMATIC_SLOTS = 4
_MAX_SLOTS = 256  # LLAMA_MAX_SEQ
_MAX_CTX_TOKENS = 2**31 - 1
_FALLBACK_CTX_TOKENS = 4096  # of a file that does not state its own
# Positions, tokens, indices of cells: per token of a micro-batch.
_INPUT_BYTES_PER_TOKEN = 32
_DELTA_NET_COPIES = 5


class Context(msgspec.Struct, frozen=True):
    """How llama.cpp lays out its cache: cells are per stream, of which there are ``streams``."""

    ctx_tokens: int
    slots: int
    streams: int
    cells: int
    windowed_cells: int
    batch_tokens: int
    ubatch_tokens: int
    outputs: int


def slots_of(arguments: LaunchArguments) -> tuple[int, bool]:
    """How many slots there are, and whether they share one cache (tools/server/server.cpp)."""
    if arguments.slots < 0:
        return _AUTOMATIC_SLOTS, True
    return min(max(arguments.slots, 1), _MAX_SLOTS), bool(arguments.kv_unified)


def wanted_ctx_tokens(info: GgufInfo, arguments: LaunchArguments) -> int:
    """Give the context that llama-server asks for, before ``--fit`` makes it smaller."""
    if arguments.ctx_size:
        return arguments.ctx_size
    slots, is_unified = slots_of(arguments)
    if arguments.ctx_size is None and arguments.ctx_per_slot:
        return min(slots * arguments.ctx_per_slot, _MAX_CTX_TOKENS)
    trained = info.context_length or _FALLBACK_CTX_TOKENS
    # Asked for all that the model can, --fit gives every stream as much.
    streams = 1 if is_unified or not arguments.fit else slots
    return min(trained * streams, _MAX_CTX_TOKENS)


def context_of(info: GgufInfo, arguments: LaunchArguments, ctx_tokens: int) -> Context:
    """Lay out a context of that size."""
    slots, is_unified = slots_of(arguments)
    batch = arguments.batch_tokens
    if arguments.embedding:
        batch = min(batch, arguments.ubatch_tokens or batch)
    batch = min(batch, ctx_tokens)
    ubatch = min(batch, arguments.ubatch_tokens or batch)
    padded = _padded(ctx_tokens, _CELL_PADDING)
    streams = 1 if is_unified else slots
    cells = _padded(max(padded // streams, 1), _CELL_PADDING)
    window = window_tokens(info)
    windowed_cells = cells
    if window and not arguments.swa_full:
        sharing = slots if is_unified else 1
        windowed_cells = _padded(min(cells, window * sharing + ubatch), _CELL_PADDING)
    per_slot = 1 + (arguments.draft_tokens if is_speculative(arguments) else 0)
    outputs = batch if arguments.embedding else min(slots * per_slot, batch)
    return Context(
        cells * streams, slots, streams, cells, windowed_cells, batch, ubatch, max(outputs, 1)
    )


def is_speculative(arguments: LaunchArguments) -> bool:
    """Whether tokens are drafted, by a second model or otherwise."""
    return arguments.draft is not None or bool(set(arguments.speculative) - {"none"})


def kv_cache_bytes(layer: Layer, context: Context, arguments: LaunchArguments) -> int:
    """Give the size of one layer's part of the KV cache."""
    cells = (context.windowed_cells if layer.is_windowed else context.cells) * context.streams
    return cells * _token_bytes(layer, arguments)


def state_bytes(layer: Layer, context: Context) -> int:
    """Give the size of one layer's recurrent state."""
    return layer.state_elements * context.slots * F32_BYTES


def checkpoint_bytes(
    layers: tuple[Layer, ...], info: GgufInfo, context: Context, arguments: LaunchArguments
) -> int:
    """Give the size of one context checkpoint: what of a sequence cannot be rolled back.

    That is the window's part of the cache and the recurrent state; 0: none is made.
    """
    tokens = 0
    if not arguments.swa_full:
        tokens = min(window_tokens(info), context.windowed_cells)
    windowed = sum(_token_bytes(layer, arguments) for layer in layers if layer.is_windowed)
    states = sum(layer.state_elements for layer in layers)
    return tokens * windowed + states * F32_BYTES


def output_bytes(info: GgufInfo, context: Context, arguments: LaunchArguments) -> int:
    """Give the size of the buffer that results are copied to, always in RAM."""
    length = info.vocab_size + (info.embedding_length if arguments.embedding else 0)
    return length * max(context.outputs, context.slots) * F32_BYTES


def input_bytes(layers: tuple[Layer, ...], context: Context, arguments: LaunchArguments) -> int:
    """Give the size of a graph's inputs: mostly the masks of attention."""
    tokens = _reserved_tokens(context)
    element_bytes = F32_BYTES if arguments.flash_attention == "off" else 2
    attending = [layer for layer in layers if layer.key_elements]
    mask = 0
    if any(not layer.is_windowed for layer in attending):
        mask += context.cells
    if any(layer.is_windowed for layer in attending):
        mask += context.windowed_cells
    if not attending and not any(layer.state_elements for layer in layers):
        mask = tokens
    return tokens * (mask * element_bytes + _INPUT_BYTES_PER_TOKEN)


def compute_bytes(
    info: GgufInfo, layers: tuple[Layer, ...], context: Context, arguments: LaunchArguments
) -> int:
    """Give the size of the compute buffer without its inputs: the widest place of the graph."""
    tokens = _reserved_tokens(context)
    embedding = info.embedding_length
    widths = [_feed_forward_width(info)]
    scores = 0
    if any(layer.key_elements for layer in layers):
        widths.append(_attention_width(info, layers))
        if arguments.flash_attention == "off":
            cells = max(
                context.windowed_cells if layer.is_windowed else context.cells
                for layer in layers
                if layer.key_elements
            )
            scores = cells * max(info.head_count, default=0) * tokens * F32_BYTES
    states = max((layer.state_elements for layer in layers), default=0) * context.slots * F32_BYTES
    if states:
        widths.append(_recurrent_width(info))
    logits = info.vocab_size * context.outputs * F32_BYTES + 5 * embedding * tokens * F32_BYTES
    return max(max(widths) * tokens * F32_BYTES + scores + states, logits)


def _feed_forward_width(info: GgufInfo) -> int:
    """Count the 32-bit floats per token at the feed-forward network."""
    embedding = info.embedding_length
    width = 3 * max(info.feed_forward_length, default=0) + 5 * embedding
    used = max(info.parameters.get("expert_used_count", (0,)))
    if info.expert_count and used:
        inner = max(info.parameters.get("expert_feed_forward_length", (0,)))
        inner = used * (inner or max(info.feed_forward_length, default=0))
        width = max(3 * inner, inner + used * embedding) + 5 * embedding
    return width


def _attention_width(info: GgufInfo, layers: tuple[Layer, ...]) -> int:
    embedding = info.embedding_length
    heads = max(info.head_count, default=0)
    key_length = info.key_length or (embedding // heads if heads else 0)
    latent = max(info.parameters.get("attention.kv_lora_rank", (0,)))
    full = max(info.parameters.get("attention.key_length_mla", (0,)))
    if latent and full:
        return heads * (key_length + latent + full + max(key_length - latent, 0)) + 5 * embedding
    keys = max(layer.key_elements for layer in layers)
    values = max(layer.value_elements for layer in layers)
    return heads * (key_length + (info.value_length or key_length)) + keys + values + 3 * embedding


def _recurrent_width(info: GgufInfo) -> int:
    inner = max(info.parameters.get("ssm.inner_size", (info.embedding_length,)))
    state = max(info.parameters.get("ssm.state_size", (0,)))
    groups = max(info.parameters.get("ssm.group_count", (0,)))
    return 5 * info.embedding_length + _DELTA_NET_COPIES * (inner + 2 * groups * state)


def _reserved_tokens(context: Context) -> int:
    return _padded(context.ubatch_tokens, context.slots)


def _token_bytes(layer: Layer, arguments: LaunchArguments) -> int:
    return _row_bytes(layer.key_elements, arguments.cache_type_k) + _row_bytes(
        layer.value_elements, arguments.cache_type_v
    )


def _row_bytes(elements: int, cache_type: str) -> int:
    block_elements, block_bytes = CACHE_TYPES[cache_type]
    return -(-elements // block_elements) * block_bytes


def _padded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
