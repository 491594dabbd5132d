"""What llama-server keeps in RAM of prompts that it has read, beside the cache they are read into.

Sources: ``server_prompt_cache`` and ``server_context::create_checkpoint`` in ``tools/server/`` of
llama.cpp b11434. When a slot gets another prompt, what the KV cache holds of the old one is copied
to RAM, byte for byte, until ``--cache-ram`` is reached (by default 8 GiB, whatever the model's
size); then the oldest go. A slot whose model cannot be rolled back (sliding window, recurrent
state) besides has up to ``--ctx-checkpoints`` checkpoints; each turn of a chat adds one or two.
"""

import msgspec

from llama_router.catalog import footprint_buffers as buffers
from llama_router.catalog.footprint_arguments import LaunchArguments
from llama_router.catalog.footprint_buffers import Context
from llama_router.catalog.footprint_layers import layers_of
from llama_router.catalog.gguf_reader import GgufInfo

_MIB_BYTES = 2**20
_DEFAULT_CHECKPOINTS = 32
# What one long prompt leaves: two, near its end.
_USUAL_CHECKPOINTS = 2


class KeptPrompts(msgspec.Struct, frozen=True):
    """What is kept, in bytes.

    ``checkpoints``: those of one long prompt. ``counted``: what comes with further ones, as far as
    it is reckoned with. ``most``: what may come at most. Neither has the ``checkpoints`` in it.
    """

    checkpoints: int = 0
    counted: int = 0
    most: int = 0


def kept_prompts(
    info: GgufInfo, draft: GgufInfo | None, arguments: LaunchArguments, context: Context
) -> KeptPrompts:
    """Say what will be kept.

    A limit that the arguments state is counted in full: it is what somebody has decided on. Of
    llama-server's own limits, which are the same for the smallest model and the largest, as much
    is counted as one full context takes: that much is reached soon, and what comes beyond it has
    to be measured.
    """
    if arguments.embedding:
        return KeptPrompts()
    one_bytes = buffers.checkpoint_bytes(layers_of(info), info, context, arguments)
    per_slot = _DEFAULT_CHECKPOINTS if arguments.checkpoints is None else arguments.checkpoints
    usual = min(per_slot, _USUAL_CHECKPOINTS)
    checkpoints = one_bytes * (per_slot * context.slots - usual)
    of_context = _context_bytes(info, arguments, context)
    if draft is not None:
        of_context += _context_bytes(draft, arguments.of_draft(), context)
    cache = _cache_limit(arguments, of_context)
    stated = (0 if arguments.cache_ram_mib is None else cache) + (
        0 if arguments.checkpoints is None else checkpoints
    )
    counted = stated + min(cache + checkpoints - stated, of_context)
    return KeptPrompts(one_bytes * usual, counted, cache + checkpoints)


def _cache_limit(arguments: LaunchArguments, of_context: int) -> int:
    limit_mib = arguments.cache_ram_mib
    if limit_mib is None:
        limit_mib = arguments.usual_cache_ram_mib
    # Without a limit in bytes there is one in tokens, of all prompts: those of one context.
    return limit_mib * _MIB_BYTES if limit_mib >= 0 else of_context


def _context_bytes(info: GgufInfo, arguments: LaunchArguments, context: Context) -> int:
    """Give what a full context holds, wherever it is."""
    return sum(
        buffers.kv_cache_bytes(layer, context, arguments) + buffers.state_bytes(layer, context)
        for layer in layers_of(info)
    )
