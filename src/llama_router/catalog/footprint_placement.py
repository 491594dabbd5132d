"""On which device the parts of a model come to lie.

Source: ``llama_model_base::load_tensors`` of llama.cpp b11434.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from llama_router.catalog import footprint_buffers as buffers
from llama_router.catalog.footprint_arguments import LaunchArguments
from llama_router.catalog.footprint_buffers import Context
from llama_router.catalog.footprint_layers import Layer, layers_of
from llama_router.catalog.gguf_reader import GgufInfo
from llama_router.catalog.gguf_tensors import MAX_BLOCKS, Moved

CPU = "cpu"
# With several graphics cards at work at a time each has several copies of a graph's inputs.
_PIPELINE_COPIES = 4

#: What memory is needed for; the fields of `llama_router.catalog.footprint.Need`.
PURPOSES = (
    "weights",
    "kv_cache",
    "recurrent_state",
    "checkpoints",
    "compute",
    "output",
    "projector",
    "draft",
    "overhead",
)

Needs = dict[str, dict[str, int]]


class Gpu(msgspec.Struct, frozen=True):
    """A graphics card as the engine would find it: ``name`` is lower-case, such as "cuda0"."""

    name: str
    free_bytes: int


def usable_gpus(gpus: Sequence[Gpu], arguments: LaunchArguments) -> tuple[Gpu, ...]:
    """Give those that the arguments let the engine use, in the order in which it does."""
    chosen = list(gpus)
    if arguments.devices is not None:
        wanted = [name.lower() for name in arguments.devices]
        chosen = [gpu for name in wanted for gpu in gpus if gpu.name == name]
    if arguments.gpu_layers == 0:
        return ()
    if arguments.split_mode == "none":
        chosen = chosen[arguments.main_gpu : arguments.main_gpu + 1]
    return tuple(chosen)


def moved_tensors(arguments: LaunchArguments) -> tuple[Moved, ...]:
    """Give the tensors that the arguments place one by one."""
    moved = [(re.compile(pattern.encode()), name.lower()) for pattern, name in arguments.overrides]
    first = min(arguments.cpu_ffn_layers, MAX_BLOCKS)
    if first:
        layers = "|".join(map(str, range(first)))
        moved.append((re.compile(rf"blk\.(?:{layers})\.ffn_(?:up|down|gate)\.".encode()), CPU))
    return tuple(moved)


def add(needs: Needs, more: Needs, *, into: str) -> None:
    """Add all purposes of ``more`` to one purpose of ``needs``."""
    for device, purposes in more.items():
        needs[device][into] += sum(purposes.values())


def model_needs(
    info: GgufInfo,
    arguments: LaunchArguments,
    context: Context,
    gpus: Sequence[Gpu],
    gpu_layers: int,
) -> Needs:
    """Spread weights, cache and buffers over the devices."""
    layers = layers_of(info)
    places = _places(len(layers), gpus, gpu_layers, arguments.tensor_split)
    needs = _empty(gpus)
    _place_weights(needs, info, arguments, places)
    _place_memory(needs, layers, context, arguments, places)
    needs[CPU]["output"] += buffers.output_bytes(info, context, arguments)
    _place_compute(needs, info, layers, context, arguments, places)
    return needs


def draft_head_needs(
    info: GgufInfo,
    arguments: LaunchArguments,
    context: Context,
    gpus: Sequence[Gpu],
    gpu_layers: int,
) -> Needs:
    """Spread what the model's own layers for drafting need beside it (``draft-mtp``)."""
    layers = layers_of(info, draft_head=True)
    places = _places(len(layers), gpus, gpu_layers, arguments.tensor_split)
    needs = _empty(gpus)
    _place_memory(needs, layers, context, arguments, places)
    needs[CPU]["output"] += buffers.output_bytes(info, context, arguments)
    _place_compute(needs, info, layers, context, arguments, places[-2:])
    return needs


def _empty(gpus: Sequence[Gpu]) -> Needs:
    return {device: dict.fromkeys(PURPOSES, 0) for device in (CPU, *(gpu.name for gpu in gpus))}


def _places(
    layer_count: int, gpus: Sequence[Gpu], gpu_layers: int, tensor_split: Sequence[float]
) -> list[str]:
    """Name the device of each layer, and last that of the output."""
    if not gpus or gpu_layers <= 0:
        return [CPU] * (layer_count + 1)
    shares = [max(share, 0.0) for share in tensor_split[: len(gpus)]]
    shares += [0.0] * (len(gpus) - len(shares))
    if not any(shares):
        shares = [float(max(gpu.free_bytes, 1)) for gpu in gpus]
    bounds = [bound / sum(shares) for bound in accumulate(shares)]
    first = max(layer_count + 1 - gpu_layers, 0)
    count = min(gpu_layers, layer_count + 1)
    last_gpu = len(gpus) - 1
    return [CPU] * first + [
        gpus[min(bisect_right(bounds, index / count), last_gpu)].name for index in range(count)
    ]


def _place_weights(
    needs: Needs, info: GgufInfo, arguments: LaunchArguments, places: Sequence[str]
) -> None:
    tensors = info.tensors
    for index, size_bytes in enumerate(tensors.blocks):
        needs[places[min(index, len(places) - 1)]]["weights"] += size_bytes
    for index, size_bytes in enumerate(tensors.experts):
        on_cpu = index < arguments.cpu_moe_layers
        place = CPU if on_cpu else places[min(index, len(places) - 1)]
        needs[place]["weights"] += size_bytes
    for device, size_bytes in tensors.moved:
        # What is no device of ours is a kind of RAM, such as CUDA_Host.
        needs[device if device in needs else CPU]["weights"] += size_bytes
    needs[CPU]["weights"] += tensors.input + tensors.other
    needs[places[-1]]["weights"] += tensors.output
    if not tensors.output_weight and places[-1] != CPU:
        # The embeddings serve as the output layer, too; on another device that takes a copy.
        needs[places[-1]]["weights"] += tensors.token_embeddings


def _place_memory(
    needs: Needs,
    layers: Sequence[Layer],
    context: Context,
    arguments: LaunchArguments,
    places: Sequence[str],
) -> None:
    for layer, place in zip(layers, places, strict=False):
        device = place if arguments.kv_offload else CPU
        needs[device]["kv_cache"] += buffers.kv_cache_bytes(layer, context, arguments)
        needs[device]["recurrent_state"] += buffers.state_bytes(layer, context)


def _place_compute(
    needs: Needs,
    info: GgufInfo,
    layers: tuple[Layer, ...],
    context: Context,
    arguments: LaunchArguments,
    places: Sequence[str],
) -> None:
    inputs = buffers.input_bytes(layers, context, arguments)
    compute = buffers.compute_bytes(info, layers, context, arguments)
    used = [device for device in needs if device != CPU and device in places]
    copies = _PIPELINE_COPIES if len(used) > 1 and CPU not in places else 1
    for device in used:
        needs[device]["compute"] += inputs * copies + compute
    if used and CPU not in places and arguments.kv_offload:
        # Only the inputs and the embeddings' rows are made there.
        rows = 2 * info.embedding_length * context.ubatch_tokens * buffers.F32_BYTES
        needs[CPU]["compute"] += inputs + rows
    else:
        needs[CPU]["compute"] += inputs + compute
