"""How much memory a model will take, from its header and the arguments of its llama-server.

The files are not loaded and no engine is started. What an engine takes once it runs is better
known by measuring it: this says what to expect before that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from llama_router.catalog import footprint_buffers as buffers
from llama_router.catalog import footprint_placement as placement
from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_layers import layers_of, window_tokens
from llama_router.catalog.footprint_placement import CPU, PURPOSES, Gpu
from llama_router.catalog.footprint_projector import projector_bytes
from llama_router.catalog.footprint_prompts import kept_prompts
from llama_router.catalog.gguf_reader import GgufInfo, read_gguf

_MIB_BYTES = 2**20
# Measured with b11434 on Linux x86-64 without a graphics card: llama-server 16, embedded 24 MiB.
_PROCESS_BYTES = 24 * _MIB_BYTES
# What a graphics library takes for itself; the usual figure, not measured here.
_GPU_PROCESS_BYTES = 150 * _MIB_BYTES
_GPU_CONTEXT_BYTES = 300 * _MIB_BYTES
# Measured with 150,000 tokens; a merge rule is a pair of strings in a tree.
_BYTES_PER_TOKEN = 160
_BYTES_PER_MERGE = 200
# llama_kv_cells: position, sequences, and a tree node for each used cell.
_BYTES_PER_CELL = 100


class Model(msgspec.Struct, frozen=True):
    """The headers of a model's files. ``info`` covers all parts of a split one."""

    info: GgufInfo
    mmproj: GgufInfo | None = None
    draft: GgufInfo | None = None


class Machine(msgspec.Struct, frozen=True):
    """What the engine will find. ``ram_bytes`` is all there is, 0 if unknown: see ``--fit``."""

    ram_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed on one device, in bytes, by purpose.

    ``draft`` is all of the draft model; ``overhead`` the engine itself and its vocabulary.
    ``kept_prompts``: what llama-server will keep of prompts once it has read some, beyond
    ``total``; see `llama_router.catalog.footprint_prompts`.
    """

    device: str
    weights: int = 0
    kv_cache: int = 0
    recurrent_state: int = 0
    checkpoints: int = 0
    compute: int = 0
    output: int = 0
    projector: int = 0
    draft: int = 0
    overhead: int = 0
    kept_prompts: int = 0

    @property
    def total(self) -> int:
        """All that is taken once one prompt has filled the context."""
        return sum(getattr(self, purpose) for purpose in PURPOSES)

    @property
    def lasting(self) -> int:
        """All that is to be expected in the long run."""
        return self.total + self.kept_prompts

    @property
    def by_use(self) -> int:
        """What of it an engine that has done nothing yet does not hold.

        RAM is taken when it is first written to, and a graph's buffers are by requests only;
        graphics cards give theirs at once.
        """
        if self.device != CPU:
            return 0
        return self.kept_prompts + self.checkpoints + self.compute + self.output


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a model needs on each device, CPU first, and how its context is laid out.

    ``may_grow_bytes``: what llama-server may take in RAM beyond all that, at most, for prompts it
    has seen (``--cache-ram``, ``--ctx-checkpoints``). ``notes`` are for people.
    """

    needs: tuple[Need, ...]
    ctx_tokens: int
    slots: int
    is_unified: bool
    gpu_layers: int
    may_grow_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All devices together, once one prompt has filled the context."""
        return sum(need.total for need in self.needs)

    @property
    def mapped_bytes(self) -> int:
        """What in RAM is weights, and pages of the file where that is mapped."""
        return sum(need.weights for need in self.needs if need.device == CPU)

    @property
    def by_device(self) -> dict[str, int]:
        """What is taken of each device once one prompt has filled the context, in bytes."""
        return {need.device: need.total for need in self.needs}

    def reserve(self, budgets: Mapping[str, int] | None = None) -> dict[str, int]:
        """Give what to keep free for the engine on each device, in bytes.

        That is what it takes in the long run; but prompts that it might keep do not make a model
        too large for a device whose budget has room for the rest.
        """
        found = {}
        for need in self.needs:
            budget = (budgets or {}).get(need.device, need.lasting)
            found[need.device] = max(need.total, min(need.lasting, budget))
        return found

    def reserve_measured(
        self, peak: Mapping[str, int], budgets: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """Give what to keep for an engine of which ``peak`` is the most that was seen so far.

        It may have done little yet: what only comes with use is added, unless that is more than
        was expected in the first place. So an estimate that is too high is corrected, and a young
        engine is not taken for a small one.
        """
        found = self.reserve(budgets)
        by_use = {need.device: need.by_use for need in self.needs}
        for device, size_bytes in peak.items():
            expected = found.get(device, 0)
            found[device] = max(size_bytes, min(expected, size_bytes + by_use.get(device, 0)))
        return found


def read_model(path: Path, arguments: LaunchArguments, *, parts: tuple[Path, ...] = ()) -> Model:
    """Read the headers of a model and of the files that the arguments name.

    ``parts`` are all files of a split model. Raises `GgufError`. Blocks on the disk.
    """
    moved = placement.moved_tensors(arguments)
    info = read_gguf(path, moved)
    tensors = info.tensors
    for part in parts:
        if part != path:
            tensors = tensors.plus(read_gguf(part, moved).tensors)
    info = msgspec.structs.replace(info, tensors=tensors, tensor_bytes=tensors.total)
    mmproj = read_gguf(arguments.mmproj) if arguments.mmproj and arguments.use_mmproj else None
    draft = read_gguf(arguments.draft) if arguments.draft else None
    return Model(info, mmproj, draft)


def expect(
    path: Path,
    command: Sequence[str],
    *,
    parts: tuple[Path, ...] = (),
    environment: Mapping[str, str] | None = None,
    machine: Machine | None = None,
) -> Footprint:
    """Say what a model needs when a llama-server is started for it by this command.

    Raises `GgufError` and `ArgumentsError`. Blocks on the disk.
    """
    arguments = parse_arguments(command, environment)
    return estimate(read_model(path, arguments, parts=parts), arguments, machine)


def estimate(model: Model, arguments: LaunchArguments, machine: Machine | None = None) -> Footprint:
    """Say what the model needs when its engine is started with these arguments."""
    machine = machine or Machine()
    gpus = placement.usable_gpus(machine.gpus, arguments)
    wanted = buffers.wanted_ctx_tokens(model.info, arguments)
    layer_count = len(layers_of(model.info))
    all_layers = layer_count + 1
    gpu_layers = arguments.gpu_layers if arguments.gpu_layers >= 0 else all_layers
    gpu_layers = min(gpu_layers, all_layers) if gpus else 0

    def at(ctx_tokens: int, gpu_layers: int) -> Footprint:
        return _estimate_at(model, arguments, gpus, ctx_tokens, gpu_layers)

    found = at(wanted, gpu_layers)
    if not arguments.fit or arguments.split_mode == "tensor":
        return found
    room = _room(machine, gpus, arguments)
    if not room or _fits(found, room):
        return found
    notes = []
    least = arguments.fit_ctx * _streams(arguments)
    if arguments.ctx_size is None and wanted > least:
        used = (
            sum(_fitted(found, room).values()),
            sum(_fitted(at(least, gpu_layers), room).values()),
        )
        ctx_tokens = _fitted_ctx((wanted, least), used, sum(room.values()), _streams(arguments))
        found = at(ctx_tokens, gpu_layers)
        notes.append(f"--fit takes {ctx_tokens} tokens of context instead of {wanted}")
        wanted = ctx_tokens
    if gpus and not arguments.is_placed and not _fits(found, room):
        # Each card gets what it has room for, instead of its share by free memory.
        roomy = tuple(Gpu(gpu.name, max(room[gpu.name], 0)) for gpu in gpus)
        fewest, most = 0, gpu_layers
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if _fits(_estimate_at(model, arguments, roomy, wanted, middle), room):
                fewest = middle
            else:
                most = middle - 1
        found = _estimate_at(model, arguments, roomy, wanted, fewest)
        notes.append(f"--fit puts {fewest} of {all_layers} layers on graphics cards")
    return msgspec.structs.replace(found, notes=(*found.notes, *notes))


def _room(machine: Machine, gpus: tuple[Gpu, ...], arguments: LaunchArguments) -> dict[str, int]:
    """Give what ``--fit`` may fill: of graphics cards what is free, else all RAM (fit.cpp)."""
    margin = arguments.fit_target_mib * _MIB_BYTES
    if gpus:
        return {gpu.name: gpu.free_bytes - margin for gpu in gpus}
    return {CPU: machine.ram_bytes - margin} if machine.ram_bytes else {}


def _fitted(found: Footprint, room: dict[str, int]) -> dict[str, int]:
    """Count what fit.cpp counts: neither the engine itself nor the projector."""
    return {
        need.device: need.total - need.overhead - need.checkpoints - need.projector
        for need in found.needs
        if need.device in room
    }


def _fits(found: Footprint, room: dict[str, int]) -> bool:
    return all(used <= max(room[device], 0) for device, used in _fitted(found, room).items())


def _streams(arguments: LaunchArguments) -> int:
    slots, is_unified = buffers.slots_of(arguments)
    return 1 if is_unified else slots


def _fitted_ctx(
    ctx_tokens: tuple[int, int], used_bytes: tuple[int, int], room_bytes: int, streams: int
) -> int:
    """Interpolate between the (full, least) context by the memory that each uses, as fit.cpp."""
    full, least = ctx_tokens
    used_full, used_least = used_bytes
    if room_bytes <= used_least or used_full <= used_least:
        return least
    fitted = least + (full - least) * (room_bytes - used_least) // (used_full - used_least)
    return max(least, min(full, fitted - fitted % (256 * streams)))


def _estimate_at(
    model: Model,
    arguments: LaunchArguments,
    gpus: tuple[Gpu, ...],
    ctx_tokens: int,
    gpu_layers: int,
) -> Footprint:
    info = model.info
    context = buffers.context_of(info, arguments, ctx_tokens)
    needs = placement.model_needs(info, arguments, context, gpus, gpu_layers)
    if "draft-mtp" in arguments.speculative:
        head = placement.draft_head_needs(info, arguments, context, gpus, gpu_layers)
        placement.add(needs, head, into="draft")
    if model.draft is not None:
        draft_layers = arguments.draft_gpu_layers
        own = arguments.of_draft()
        count = len(layers_of(model.draft)) + 1
        on_gpu = (min(draft_layers, count) if draft_layers >= 0 else count) if gpus else 0
        laid_out = buffers.context_of(model.draft, own, ctx_tokens)
        draft = placement.model_needs(model.draft, own, laid_out, gpus, on_gpu)
        placement.add(needs, draft, into="draft")
    if model.mmproj is not None:
        target = gpus[0].name if gpus and arguments.mmproj_offload else CPU
        needs[target]["projector"] += projector_bytes(model.mmproj)
    kept = kept_prompts(info, model.draft, arguments, context)
    needs[CPU]["checkpoints"] = kept.checkpoints
    needs[CPU]["kept_prompts"] = kept.counted
    vocabularies = [each for each in (info, model.draft) if each is not None]
    needs[CPU]["overhead"] = (
        _PROCESS_BYTES
        + (_GPU_PROCESS_BYTES if gpus else 0)
        + sum(each.vocab_size * _BYTES_PER_TOKEN for each in vocabularies)
        + sum(each.merge_count * _BYTES_PER_MERGE for each in vocabularies)
        + context.ctx_tokens * _BYTES_PER_CELL
    )
    for gpu in gpus:
        if any(needs[gpu.name].values()):
            needs[gpu.name]["overhead"] = _GPU_CONTEXT_BYTES
    slots, is_unified = buffers.slots_of(arguments)
    return Footprint(
        needs=tuple(Need(device=device, **purposes) for device, purposes in needs.items()),
        ctx_tokens=context.ctx_tokens,
        slots=slots,
        is_unified=is_unified,
        gpu_layers=gpu_layers,
        may_grow_bytes=kept.most - kept.counted,
        notes=_notes(info, arguments),
    )


def _notes(info: GgufInfo, arguments: LaunchArguments) -> tuple[str, ...]:
    notes = []
    if info.sliding_window and not window_tokens(info) and arguments.ctx_size != 0:
        notes.append("llama.cpp makes no use of this model's sliding window")
    return tuple(notes)
