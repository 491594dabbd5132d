"""What llama.cpp's own ``llama-fit-params`` says of a model, to hold an estimate against.

It makes llama.cpp's graphs without allocating them, so its figures are those of the build. It
knows neither projector nor draft model nor what a server takes besides. Source:
``tools/fit-params/`` and ``common_fit_print`` of llama.cpp b11434.
"""

import re
from pathlib import Path

import msgspec

from llama_router.catalog.footprint import Footprint
from llama_router.catalog.footprint_arguments import LaunchArguments
from llama_router.catalog.footprint_placement import CPU

_MIB_BYTES = 2**20
_HOST = "host"
_LINE = re.compile(r"([A-Za-z][\w.:-]{0,63}) ([0-9]{1,9}) ([0-9]{1,9}) ([0-9]{1,9}) ?", re.ASCII)
_MAX_DEVICES = 64  # far more than a machine has; llama.cpp takes 16
_MAX_LAYERS = 512  # LLAMA_MAX_LAYERS


class Parts(msgspec.Struct, frozen=True):
    """What a model takes of one device, in bytes, by llama.cpp's names."""

    model: int
    context: int
    compute: int


class FitOutputError(ValueError):
    """What was printed is not what ``llama-fit-params`` prints."""


def fit_arguments(path: Path, arguments: LaunchArguments, found: Footprint) -> list[str]:
    """Give the arguments with which ``llama-fit-params`` looks at what ``found`` is about."""
    # It knows no slots that share a context. One that has all of it takes the same, but for
    # recurrent states, which each slot has of its own.
    has_states = any(need.recurrent_state for need in found.needs)
    slots = found.slots if has_states or not found.is_unified else 1
    given = ["--model", str(path), "--fit-print", "on"]
    given += ["--ctx-size", str(found.ctx_tokens), "--parallel", str(slots)]
    given += ["--batch-size", str(arguments.batch_tokens)]
    given += ["--ubatch-size", str(arguments.ubatch_tokens)]
    given += ["--cache-type-k", arguments.cache_type_k, "--cache-type-v", arguments.cache_type_v]
    given += ["--flash-attn", arguments.flash_attention, "--split-mode", arguments.split_mode]
    given += ["--gpu-layers", str(found.gpu_layers), "--main-gpu", str(arguments.main_gpu)]
    if arguments.swa_full:
        given.append("--swa-full")
    if not arguments.kv_offload:
        given.append("--no-kv-offload")
    if arguments.tensor_split:
        given += ["--tensor-split", ",".join(map(str, arguments.tensor_split))]
    if arguments.devices is not None:
        given += ["--device", ",".join(arguments.devices) or "none"]
    for pattern, device in arguments.overrides:
        given += ["--override-tensor", f"{pattern}={device}"]
    if arguments.cpu_moe_layers:
        given += ["--n-cpu-moe", str(min(arguments.cpu_moe_layers, _MAX_LAYERS))]
    if arguments.cpu_ffn_layers:
        given += ["--n-cpu-ffn", str(min(arguments.cpu_ffn_layers, _MAX_LAYERS))]
    return given


def parse_fit(output: str) -> dict[str, Parts]:
    """Read what it prints, lines of other kinds among it: a line for each device, RAM last.

    Raises `FitOutputError`.
    """
    found: dict[str, Parts] = {}
    for line in output.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        if CPU in found:
            raise FitOutputError("it goes on after the line of the RAM")
        if len(found) >= _MAX_DEVICES:
            raise FitOutputError("it names more devices than there can be")
        name = match[1].lower()
        sizes = (int(match[group]) * _MIB_BYTES for group in (2, 3, 4))
        found[CPU if name == _HOST else name] = Parts(*sizes)
    if CPU not in found:
        raise FitOutputError("it has no line for the RAM")
    return found


def estimated_parts(found: Footprint) -> dict[str, Parts]:
    """Sum an estimate up in the same way."""
    return {
        need.device: Parts(need.weights, need.kv_cache + need.recurrent_state, need.compute)
        for need in found.needs
    }
