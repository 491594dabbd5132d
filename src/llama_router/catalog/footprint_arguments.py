"""What a llama-server command line says about memory: llama.cpp ``common/arg.cpp``, b11434.

Only the options that decide how much memory is taken are known here; all others are passed over.
As in llama.cpp, options also come from the environment, the command line wins over it, and the
last of several wins.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

#: (elements per block, bytes per block) of each type that a KV cache can have.
CACHE_TYPES: dict[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}

_LARGEST = 2**31 - 1  # llama.cpp's integers
_ALL_LAYERS = -2
_AUTO = -1


class LaunchArguments(msgspec.Struct, frozen=True, kw_only=True):
    """llama-server's settings that decide about memory, with its own defaults.

    ``ctx_size`` 0 is the model's; None is that too, and ``fit`` may take less. ``slots`` -1 is
    automatic: four, and ``kv_unified``. ``gpu_layers`` -1: as many as fit, -2: all.
    ``cpu_moe_layers`` and ``cpu_ffn_layers``: how many of the first layers leave their experts, or
    their dense feed-forward networks, in RAM. ``overrides``: patterns of tensors' names, each with
    the device for them (``--override-tensor``).
    ``cache_ram_mib`` -1: no limit in bytes; it and ``checkpoints`` are None where nothing is said,
    and ``usual_cache_ram_mib`` holds. ``is_mapped``: weights in RAM are pages of the file, which
    the system can take back.
    """

    ctx_size: int | None = None
    slots: int = _AUTO
    kv_unified: bool | None = None
    ctx_per_slot: int = 0
    batch_tokens: int = 2048
    ubatch_tokens: int = 512
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attention: str = "auto"
    swa_full: bool = False
    kv_offload: bool = True
    gpu_layers: int = _AUTO
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    devices: tuple[str, ...] | None = None
    cpu_moe_layers: int = 0
    cpu_ffn_layers: int = 0
    overrides: tuple[tuple[str, str], ...] = ()
    fit: bool = True
    fit_target_mib: int = 1024
    fit_ctx: int = 4096
    embedding: bool = False
    checkpoints: int | None = None
    cache_ram_mib: int | None = None
    usual_cache_ram_mib: int = 8192
    is_mapped: bool = True
    model: Path | None = None
    mmproj: Path | None = None
    use_mmproj: bool = True
    mmproj_offload: bool = True
    draft: Path | None = None
    draft_cache_type_k: str = "f16"
    draft_cache_type_v: str = "f16"
    draft_gpu_layers: int = _AUTO
    draft_tokens: int = 3
    speculative: tuple[str, ...] = ()

    @property
    def is_placed(self) -> bool:
        """Whether they say what goes where, so that ``--fit`` leaves that alone."""
        return (
            self.gpu_layers != _AUTO
            or any(self.tensor_split)
            or bool(self.overrides or self.cpu_moe_layers or self.cpu_ffn_layers)
            or self.split_mode not in ("layer", "none")
        )

    def of_draft(self) -> "LaunchArguments":
        """Give what holds for the draft model in place of the model."""
        return msgspec.structs.replace(
            self,
            cache_type_k=self.draft_cache_type_k,
            cache_type_v=self.draft_cache_type_v,
            gpu_layers=self.draft_gpu_layers,
        )


class ArgumentsError(ValueError):
    """An option has a value that llama-server would refuse. The text is for the user."""


class _Option(msgspec.Struct, frozen=True):
    field: str
    names: tuple[str, ...]
    read: Callable[[str], object]
    environment: str = ""


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) > _LARGEST:
        raise ValueError("the number is too large")
    return number


def _size(text: str) -> int:
    number = _integer(text)
    if number < 0:
        raise ValueError("it must not be negative")
    return number


def _positive(text: str) -> int:
    number = _integer(text)
    if number <= 0:
        raise ValueError("it has to be greater than 0")
    return number


def _cache_type(text: str) -> str:
    if text not in CACHE_TYPES:
        raise ValueError(f"it has to be one of {', '.join(CACHE_TYPES)}")
    return text


def _layers(text: str) -> int:
    return {"auto": _AUTO, "all": _ALL_LAYERS}.get(text) or _integer(text)


def _flag(text: str) -> bool:
    return text.lower() in ("1", "on", "true", "enabled")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.replace("/", ",").split(",") if part.strip())


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _devices(text: str) -> tuple[str, ...]:
    return () if text == "none" else _words(text)


def _overrides(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    for part in text.split(","):
        pattern, separator, buffer_type = part.partition("=")
        if not separator:
            raise ValueError("each part has to be <tensor name pattern>=<buffer type>")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no pattern: {error}") from None
        found.append((pattern, buffer_type))
    return tuple(found)


def _is_mapped(load_mode: str) -> bool:
    return load_mode in ("auto", "mmap")


def _first_mib(text: str) -> int:
    return _integer(text.split(",", maxsplit=1)[0])


_OVERRIDES = _Option(
    "overrides", ("-ot", "--override-tensor"), _overrides, "LLAMA_ARG_OVERRIDE_TENSOR"
)
_OPTIONS = (
    _Option("ctx_size", ("-c", "--ctx-size"), _size, "LLAMA_ARG_CTX_SIZE"),
    _Option("slots", ("-np", "--parallel"), _integer, "LLAMA_ARG_N_PARALLEL"),
    _Option("ctx_per_slot", ("--kv-unified-per-slot",), _size, "LLAMA_ARG_KV_UNIFIED_PER_SLOT"),
    _Option("batch_tokens", ("-b", "--batch-size"), _positive, "LLAMA_ARG_BATCH"),
    _Option("ubatch_tokens", ("-ub", "--ubatch-size"), _size, "LLAMA_ARG_UBATCH"),
    _Option("cache_type_k", ("-ctk", "--cache-type-k"), _cache_type, "LLAMA_ARG_CACHE_TYPE_K"),
    _Option("cache_type_v", ("-ctv", "--cache-type-v"), _cache_type, "LLAMA_ARG_CACHE_TYPE_V"),
    _Option(
        "gpu_layers",
        ("-ngl", "--gpu-layers", "--n-gpu-layers"),
        _layers,
        "LLAMA_ARG_N_GPU_LAYERS",
    ),
    _Option("split_mode", ("-sm", "--split-mode"), str, "LLAMA_ARG_SPLIT_MODE"),
    _Option("tensor_split", ("-ts", "--tensor-split"), _numbers, "LLAMA_ARG_TENSOR_SPLIT"),
    _Option("main_gpu", ("-mg", "--main-gpu"), _size, "LLAMA_ARG_MAIN_GPU"),
    _Option("devices", ("-dev", "--device"), _devices, "LLAMA_ARG_DEVICE"),
    _Option("cpu_moe_layers", ("-ncmoe", "--n-cpu-moe"), _size, "LLAMA_ARG_N_CPU_MOE"),
    _Option("cpu_ffn_layers", ("-ncffn", "--n-cpu-ffn"), _size, "LLAMA_ARG_N_CPU_FFN"),
    _OVERRIDES,
    _Option("fit_target_mib", ("-fitt", "--fit-target"), _first_mib, "LLAMA_ARG_FIT_TARGET"),
    _Option("fit_ctx", ("-fitc", "--fit-ctx"), _size, "LLAMA_ARG_FIT_CTX"),
    _Option(
        "checkpoints",
        ("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"),
        _size,
        "LLAMA_ARG_CTX_CHECKPOINTS",
    ),
    _Option("cache_ram_mib", ("-cram", "--cache-ram"), _integer, "LLAMA_ARG_CACHE_RAM"),
    _Option("is_mapped", ("-lm", "--load-mode"), _is_mapped, "LLAMA_ARG_LOAD_MODE"),
    _Option("model", ("-m", "--model"), Path, "LLAMA_ARG_MODEL"),
    _Option("mmproj", ("-mm", "--mmproj"), Path, "LLAMA_ARG_MMPROJ"),
    _Option(
        "draft",
        ("-md", "--model-draft", "--spec-draft-model"),
        Path,
        "LLAMA_ARG_SPEC_DRAFT_MODEL",
    ),
    _Option(
        "draft_cache_type_k",
        ("-ctkd", "--cache-type-k-draft", "--spec-draft-type-k"),
        _cache_type,
        "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K",
    ),
    _Option(
        "draft_cache_type_v",
        ("-ctvd", "--cache-type-v-draft", "--spec-draft-type-v"),
        _cache_type,
        "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V",
    ),
    _Option(
        "draft_gpu_layers",
        ("-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"),
        _layers,
        "LLAMA_ARG_N_GPU_LAYERS_DRAFT",
    ),
    _Option("draft_tokens", ("--spec-draft-n-max",), _size, "LLAMA_ARG_SPEC_DRAFT_N_MAX"),
    _Option("speculative", ("--spec-type",), _words, "LLAMA_ARG_SPEC_TYPE"),
)

# Options whose value may be left out, and what that means.
_OPTIONAL = (
    _Option("flash_attention", ("-fa", "--flash-attn"), str, "LLAMA_ARG_FLASH_ATTN"),
    _Option("fit", ("-fit", "--fit"), _flag, "LLAMA_ARG_FIT"),
)
_LEFT_OUT: dict[str, object] = {"flash_attention": "on", "fit": True}
_SWITCHES: dict[str, tuple[str, object]] = {
    "-kvu": ("kv_unified", True),
    "--kv-unified": ("kv_unified", True),
    "-no-kvu": ("kv_unified", False),
    "--no-kv-unified": ("kv_unified", False),
    "--swa-full": ("swa_full", True),
    "-kvo": ("kv_offload", True),
    "--kv-offload": ("kv_offload", True),
    "-nkvo": ("kv_offload", False),
    "--no-kv-offload": ("kv_offload", False),
    "-cmoe": ("cpu_moe_layers", _LARGEST),
    "--cpu-moe": ("cpu_moe_layers", _LARGEST),
    "--mmap": ("is_mapped", True),  # of builds before --load-mode, as are the next two
    "--no-mmap": ("is_mapped", False),
    "--mlock": ("is_mapped", False),
    "--embedding": ("embedding", True),
    "--embeddings": ("embedding", True),
    "--rerank": ("embedding", True),
    "--reranking": ("embedding", True),
    "--mmproj-auto": ("use_mmproj", True),
    "--no-mmproj": ("use_mmproj", False),
    "--no-mmproj-auto": ("use_mmproj", False),
    "--mmproj-offload": ("mmproj_offload", True),
    "--no-mmproj-offload": ("mmproj_offload", False),
}
_SWITCH_VARIABLES = {
    "LLAMA_ARG_KV_UNIFIED": "kv_unified",
    "LLAMA_ARG_SWA_FULL": "swa_full",
    "LLAMA_ARG_KV_OFFLOAD": "kv_offload",
    "LLAMA_ARG_EMBEDDINGS": "embedding",
    "LLAMA_ARG_MMPROJ_OFFLOAD": "mmproj_offload",
}
_BY_NAME = {name: option for option in (*_OPTIONS, *_OPTIONAL) for name in option.names}


def parse_arguments(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> LaunchArguments:
    """Read a command line of llama-server, with or without the program in front.

    Raises `ArgumentsError` for a value that llama-server would refuse.
    """
    environment = environment or {}
    values = _from_environment(environment)
    overrides = [text for text in (environment.get(_OVERRIDES.environment),) if text]
    at = 0
    while at < len(argv):
        name = argv[at].replace("_", "-") if argv[at].startswith("--") else argv[at]
        at += 1
        if name in _SWITCHES:
            field, value = _SWITCHES[name]
            values[field] = value
            continue
        option = _BY_NAME.get(name)
        if option is None:
            continue
        left_out = at >= len(argv) or (option in _OPTIONAL and argv[at].startswith("-"))
        if left_out and option not in _OPTIONAL:
            raise ArgumentsError(f"option {name} needs a value")
        if left_out:
            values[option.field] = _LEFT_OUT[option.field]
            continue
        text = argv[at]
        if option is _OVERRIDES:  # of these not the last counts, but all
            overrides.append(text)
            text = ",".join(overrides)
        values[option.field] = _read(option, name, text)
        at += 1
    return msgspec.structs.replace(LaunchArguments(), **values)


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for option in (*_OPTIONS, *_OPTIONAL):
        text = environment.get(option.environment)
        if text:
            values[option.field] = _read(option, option.environment, text)
    for variable, field in _SWITCH_VARIABLES.items():
        if variable in environment:
            values[field] = _flag(environment[variable])
    return values


def _read(option: _Option, name: str, text: str) -> object:
    try:
        return option.read(text)
    except ValueError as error:
        raise ArgumentsError(f"option {name} does not take {text!r}: {error}") from None
