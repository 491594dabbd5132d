"""Which models there are and how each is run: the catalogue's finds under the config's settings."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.model import CatalogModel, Metadata, ModelSource
from llama_router.catalog.resolve import Catalog
from llama_router.config.resolve import resolve
from llama_router.config.schema import (
    DEFAULT_COMMAND,
    Config,
    ModelEntry,
    ModelSettings,
    SpawnSettings,
)
from llama_router.core.events import DeviceBytes, ModelSpec
from llama_router.engines.address import fixed_address, fixed_port
from llama_router.engines.kinds import CommandTemplate, ModelFacts
from llama_router.engines.launch import OwnerCheck
from llama_router.runtime.stock import named_files

_log = logging.getLogger(__name__)

# Enough to see what is meant, in a line that a person reads.
_NAMES_SHOWN_COUNT = 8
# A thread that asks the disk thousands of small questions gives the interpreter away with each and
# has it back before another thread is awake, for ten milliseconds on end: but for a pause.
_BREATH_S = 0.00005
_BREATH_EVERY_COUNT = 8

# A load that was never timed: of a small model, and what a usual disk gives.
USUAL_START_S = 1.0
USUAL_BYTES_PER_S = 1_000_000_000


_NOTHING = Metadata()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model's engine before it is started.

    ``memory``: bytes by device, nothing when that is not known. ``load_s``: how long its last load
    took, 0 when it was never timed. ``slots``: how many requests its command lets it answer at a
    time, 0 when that is not said.
    """

    memory: Mapping[str, int] = {}
    load_s: float = 0.0
    slots: int = 0


# gc=False: there are thousands, without cycles; a collection of those just made stops all threads.
class RosterModel(msgspec.Struct, frozen=True, gc=False):
    """One model with everything that is needed to run it.

    ``spawn`` and ``entry`` are what the config comes to for it, all layers laid over each other.
    """

    found: CatalogModel
    spawn: SpawnSettings
    entry: ModelEntry

    @property
    def group(self) -> str:
        """The name of its group; empty for one without."""
        return self.entry.group

    @property
    def facts(self) -> ModelFacts:
        """What a command can say of the model."""
        found = self.found
        said = found.metadata or _NOTHING
        return ModelFacts(
            id=found.id,
            path=found.path,
            mmproj=found.mmproj,
            draft=found.draft,
            is_embedding=said.embedding,
            is_reranker=said.reranker,
        )

    @property
    def template(self) -> CommandTemplate:
        """How its engine is started."""
        spawn = self.spawn
        return CommandTemplate(
            command=spawn.command,
            health_path=spawn.health_endpoint,
            owner_check=OwnerCheck(spawn.owner_check),
            env=spawn.env,
            stop_command=spawn.stop_command or (),
            address=spawn.address or "",
            parameters=self.entry.parameters,
            is_default=spawn.command == DEFAULT_COMMAND,
        )


class Roster:
    """All models, by id, and how names lead to them.

    The router has one for its whole life; with ``follow`` it says what another one says. Whoever
    goes through all models takes ``models`` once.
    """

    def __init__(self, models: list[RosterModel], config: Config) -> None:
        self._config = config
        self._models = {model.found.id: model for model in models}
        # Models that are configured no more, while their engines come to their end.
        self._leaving: dict[str, RosterModel] = {}
        self.fixed_ports = frozenset(
            fixed_port(model.spawn.address) for model in models if model.spawn.address
        )
        """Ports of this machine where engines listen that were told so by the config."""
        self.catalog = Catalog(model.found for model in models)
        # Folders that do not answer now: who asks for anything in them may wait for ever.
        self.silent_folders: Callable[[], Sequence[Path]] = tuple

    def __getitem__(self, model_id: str) -> RosterModel:
        model = self._models.get(model_id)
        return self._leaving[model_id] if model is None else model

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._models

    def find(self, model_id: str) -> RosterModel | None:
        """Return a model, also one that is leaving; None for one that is neither."""
        model = self._models.get(model_id)
        return self._leaving.get(model_id) if model is None else model

    def silence_of(self, model: RosterModel) -> str:
        """Say that a model's disk does not answer; "" as long as it may be asked for the file."""
        path = model.found.path
        is_silent = path is not None and _is_silent(str(path), self.silent_folders())
        return f"the folder of {path} does not answer" if is_silent else ""

    def __len__(self) -> int:
        return len(self._models)

    @property
    def models(self) -> tuple[RosterModel, ...]:
        """All models, the invalid ones too, in the order of their ids."""
        return tuple(self._models.values())

    @property
    def config(self) -> Config:
        """The config that the models are run by."""
        return self._config

    @property
    def leaving(self) -> Mapping[str, RosterModel]:
        """Models that are configured no more, of which engines may still be there."""
        return self._leaving

    def follow(
        self, other: "Roster", *, leaving: Mapping[str, RosterModel] | None = None
    ) -> list[Collection[object]]:
        """Say what ``other`` says from now on; of those who are ``leaving``, what was said.

        Returns what is not needed any more: thousands of models are not let go of at once.
        """
        before = [self._models.values(), self._leaving.values(), (self.catalog,)]
        self._config, self._models, self.catalog = other._config, other._models, other.catalog
        self._leaving = dict(leaving or {})
        self.fixed_ports = other.fixed_ports
        return before

    def specs(
        self, figures: Mapping[str, Figure] | None = None, *, is_memory_aware: bool = False
    ) -> tuple[ModelSpec, ...]:
        """Return what the core is to know: only models that can be run."""
        known = figures or {}
        return tuple(
            self.spec(model, known.get(model.found.id), is_memory_aware=is_memory_aware)
            for model in self.models
            if not model.found.invalid
        )

    def spec(
        self, model: RosterModel, figure: Figure | None = None, *, is_memory_aware: bool = False
    ) -> ModelSpec:
        """Return what the core is to know of one model.

        One without a group runs beside others if what it needs is known, else alone.
        """
        router = self._config.router
        entry, name = model.entry, model.found.id
        figure = figure or Figure()
        size_bytes = model.found.size_bytes
        ready_timeout_s = _or(entry.ready_timeout_s, router.ready_timeout_s)
        return ModelSpec(
            name=name,
            group=self._group(model, figure, is_memory_aware=is_memory_aware),
            fingerprint=fingerprint(model),
            ready_timeout_s=ready_timeout_s + size_bytes / router.ready_bytes_per_s,
            stop_grace_s=_or(entry.stop_grace_s, router.stop_grace_s),
            drain_deadline_s=router.drain_deadline_s,
            memory=device_bytes(figure.memory) if is_memory_aware else (),
            load_cost_s=figure.load_s or USUAL_START_S + size_bytes / USUAL_BYTES_PER_S,
            pinned=entry.pinned,
            ttl_s=_or(entry.ttl_s, router.ttl_s) or None,
            priority=entry.priority,
            max_in_flight=_least(entry.max_in_flight or figure.slots, entry.max_requests),
            max_waiting=entry.max_waiting,
            max_requests=entry.max_requests,
            min_residency_s=entry.min_residency_s,
            address=fixed_address(model.spawn.address or ""),
        )

    def _group(self, model: RosterModel, figure: Figure, *, is_memory_aware: bool) -> str:
        if model.group:
            # Apart, so that a group that is called like a loner's id is not its group.
            return group_name(model.group)
        if self._config.matrix is not None or (is_memory_aware and figure.memory):
            return ""
        return f"model {model.found.id}"


def group_name(group: str) -> str:
    """Return what the core calls a group of the config."""
    return f"group {group}"


def _least(*limits: int) -> int:
    """Return the least of limits of which 0 is none."""
    return min((limit for limit in limits if limit), default=0)


def _or(own: float | None, common: float) -> float:
    return common if own is None else own


def take_stock(config: Config, env: Mapping[str, str], home: Path) -> Roster:
    """Look for models and lay the config over them. Reads the disk: not for the event loop."""
    folders = tuple(Path(folder) for folder in config.router.models_dirs)
    return build_roster(config, discover(Sources(folders, env, home, files=named_files(config))))


def build_roster(
    config: Config,
    found: Sequence[CatalogModel],
    overrides: Mapping[str, ModelSettings] | None = None,
    silent: Sequence[Path] = (),
) -> Roster:
    """Lay the config over the models found, and over that ``overrides``, by ids of models.

    A ``manual`` entry is a model of its own, and takes the place of a found one with the same file
    or id; an ``auto`` entry gives settings to the found model that it names. Several manual entries
    may run one file in several ways. An ``auto`` entry whose file is not among the finds has no
    effect; if the file exists, a warning says so. What was found of files because the config names
    them (`ModelSource.CONFIG`) is for its manual entries only. Reads the disk, but no folder that
    is ``silent``, and takes its time with many models: not for the event loop.
    """
    files = _Files()
    named = _Finds([one for one in found if one.source is ModelSource.CONFIG], silent, files)
    found = [model for model in found if model.source is not ModelSource.CONFIG]
    finds = _Finds(found, silent, files)
    lay = _Layers(config, overrides or {})
    by_id = {model.id: lay.over(model, None) for model in found}
    entries = {
        state: [e for e in config.models if e.state == state] for state in ("auto", "manual")
    }
    missing: list[str] = []
    for entry in entries["auto"]:
        match = finds.match(entry)
        if match is not None:
            model = msgspec.structs.replace(
                by_id[match.id].found,
                names=(*by_id[match.id].found.names, entry.name, *entry.aliases),
                mmproj=Path(entry.mmproj) if entry.mmproj else match.mmproj,
            )
            by_id[match.id] = lay.over(model, entry)
        elif entry.path and finds.is_there(entry.path):
            _log.warning(
                "model '%s' is left out: its file %s is in none of the folders that are searched;"
                " give the entry state: manual, or add the folder to router.models_dirs",
                entry.name,
                entry.path,
            )
        elif not entry.path:
            missing.append(entry.name)
    if missing:
        _log.info("left out, as they are not here: %s", _some(missing))
    for entry in entries["manual"]:
        twin = finds.with_file(entry.path)
        if twin is not None:
            by_id.pop(twin.id, None)
    for entry in entries["manual"]:
        twin = finds.with_file(entry.path) or named.with_file(entry.path)
        made = lay.over(_manual(entry, twin, silent, files), entry)
        if twin is not None and twin.source is ModelSource.CONFIG and not made.template.is_default:
            # Which files an engine of the user's own can read is for that engine to say.
            found_file = msgspec.structs.replace(made.found, invalid="")
            made = msgspec.structs.replace(made, found=found_file)
        by_id[entry.name] = made
    return Roster([by_id[model_id] for model_id in sorted(by_id)], config)


class _Layers:
    """Lays what the config says over models."""

    def __init__(self, config: Config, overrides: Mapping[str, ModelSettings]) -> None:
        self._config = config
        self._overrides = overrides
        # What nearly all models of a large folder have.
        self._plain = resolve(config, None)

    def over(self, model: CatalogModel, entry: ModelEntry | None) -> RosterModel:
        override = self._overrides.get(model.id)
        is_plain = entry is None and override is None
        resolved = self._plain if is_plain else resolve(self._config, entry, override)
        by_id = resolved.entry.filters.set_params_by_id
        if by_id or entry is not None:
            names = dict.fromkeys((*model.names, *by_id))
            names.pop(model.id, None)
            model = msgspec.structs.replace(model, names=tuple(names))
        return RosterModel(model, resolved.spawn, resolved.entry)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN_COUNT])
    if len(names) > _NAMES_SHOWN_COUNT:
        shown += f" and {len(names) - _NAMES_SHOWN_COUNT} more"
    if any("/" in name for name in names):
        shown += "; `llama-router pull NAME` downloads a model of the hub"
    return shown


class _Files:
    """Asks the disk, with pauses."""

    def __init__(self) -> None:
        self._real_paths: dict[str, str] = {}
        self._question_count = 0

    def real_path(self, path: str) -> str:
        """Return where a path leads to; the disk is asked once for each."""
        known = self._real_paths.get(path)
        if known is None:
            self._breathe()
            known = self._real_paths[path] = os.path.realpath(path)
        return known

    def status(self, path: Path) -> os.stat_result:
        """Return the status of a file. Raises OSError."""
        self._breathe()
        return path.stat()

    def _breathe(self) -> None:
        self._question_count += 1
        if self._question_count % _BREATH_EVERY_COUNT == 0:
            time.sleep(_BREATH_S)


class _Finds:
    """What was found on disk, by what an entry of the config may say of it."""

    def __init__(
        self, found: Sequence[CatalogModel], silent: Sequence[Path], files: "_Files"
    ) -> None:
        self._silent = silent
        self._files = files
        self._by_id = {model.id: model for model in found}
        self._by_file: dict[str, CatalogModel] = {}
        # What does not answer can only be named as it was when it did.
        self._by_path = {str(model.path): model for model in found} if silent else {}
        self._by_name: dict[str, CatalogModel] = {}
        for model in found:
            real_path = model.real_path or model.path
            if real_path is not None:
                self._by_file.setdefault(str(real_path), model)
            for name in model.names:
                self._by_name.setdefault(name, model)

    def match(self, entry: ModelEntry) -> CatalogModel | None:
        """Return the model that an entry speaks of: by id, else by file, else by a name."""
        return (
            self._by_id.get(entry.name)
            or self.with_file(entry.path)
            or self._by_name.get(entry.name)
        )

    def with_file(self, path: str) -> CatalogModel | None:
        """Return the model of a file, however it is linked to."""
        if not path:
            return None
        if _is_silent(path, self._silent):
            return self._by_path.get(path) or self._by_file.get(path)
        return self._by_file.get(self._files.real_path(path))

    def is_there(self, path: str) -> bool:
        """Tell whether a file exists, as far as that can be found out."""
        # Path's raises.
        return not _is_silent(path, self._silent) and os.path.exists(path)  # noqa: PTH110


def _is_silent(path: str, silent: Sequence[Path]) -> bool:
    return any(map(Path(path).is_relative_to, silent))


def _manual(
    entry: ModelEntry, twin: CatalogModel | None, silent: Sequence[Path], files: _Files
) -> CatalogModel:
    """Make the model of a manual entry; ``twin`` is what was found of its file."""
    path = Path(entry.path) if entry.path else None
    names = [*entry.aliases]
    if path is not None:
        names += [path.name, path.stem]
    model = CatalogModel(
        id=entry.name,
        path=path,
        source=ModelSource.CONFIG,
        names=tuple(name for name in dict.fromkeys(names) if name != entry.name),
        mmproj=Path(entry.mmproj) if entry.mmproj else None,
    )
    if path is None:
        return model
    if twin is not None:
        return msgspec.structs.replace(
            model,
            parts=twin.parts,
            mmproj=model.mmproj or twin.mmproj,
            draft=twin.draft,
            metadata=twin.metadata,
            size_bytes=twin.size_bytes,
            modified_at_s=twin.modified_at_s,
            invalid=twin.invalid,
        )
    if _is_silent(entry.path, silent):
        return msgspec.structs.replace(model, invalid=f"the folder of {path} does not answer")
    try:
        status = files.status(path)
    except OSError as error:
        problem = f"its file {path} cannot be read: {error.strerror}"
        return msgspec.structs.replace(model, invalid=problem)
    return msgspec.structs.replace(model, size_bytes=status.st_size, modified_at_s=status.st_mtime)


def device_bytes(memory: Mapping[str, int]) -> tuple[DeviceBytes, ...]:
    """Return amounts by device as the core knows them."""
    return tuple(DeviceBytes(device, size_bytes) for device, size_bytes in sorted(memory.items()))


def fingerprint(model: RosterModel) -> str:
    """Return a value that changes when a running engine would not be what the config asks for."""
    spawn, found = model.spawn, model.found
    parts = (
        spawn.command,
        sorted(spawn.env.items()),
        spawn.address,
        spawn.health_endpoint,
        spawn.owner_check,
        sorted(model.entry.parameters.items()),
        str(found.path),
        str(found.mmproj),
        str(found.draft),
        # A file that was replaced is another model.
        found.size_bytes,
        found.modified_at_s,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
