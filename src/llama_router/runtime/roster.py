"""Which models there are and how each is run: the catalogue's finds under the config's settings."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.resolve import Catalog
from llama_router.config.schema import Config, ModelEntry, SpawnSettings
from llama_router.core.events import DeviceBytes, ModelSpec
from llama_router.engines.kinds import CommandTemplate, ModelFacts
from llama_router.engines.launch import OwnerCheck

_log = logging.getLogger(__name__)

# A load that was never timed: of a small model, and what a usual disk gives.
USUAL_START_S = 1.0
USUAL_BYTES_PER_S = 1_000_000_000


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model's engine before it is started.

    ``memory``: bytes by device, nothing when that is not known. ``load_s``: how long its last load
    took, 0 when it was never timed. ``slots``: how many requests its command lets it answer at a
    time, 0 when that is not said.
    """

    memory: Mapping[str, int] = {}
    load_s: float = 0.0
    slots: int = 0


class RosterModel(msgspec.Struct, frozen=True):
    """One model with everything that is needed to run it.

    ``group`` is empty for one without; ``entry`` is what the config says of it, None for nothing.
    """

    found: CatalogModel
    spawn: SpawnSettings
    group: str
    entry: ModelEntry | None = None

    @property
    def facts(self) -> ModelFacts:
        """What a command can say of the model."""
        return ModelFacts(id=self.found.id, path=self.found.path, mmproj=self.found.mmproj)

    @property
    def template(self) -> CommandTemplate:
        """How its engine is started."""
        return CommandTemplate(
            command=self.spawn.command,
            health_path=self.spawn.health_endpoint,
            owner_check=OwnerCheck(self.spawn.owner_check),
        )


class Roster:
    """All models, by id, and how names lead to them."""

    def __init__(self, models: list[RosterModel], config: Config) -> None:
        self._config = config
        self._models = {model.found.id: model for model in models}
        self.catalog = Catalog(model.found for model in models)

    def __getitem__(self, model_id: str) -> RosterModel:
        return self._models[model_id]

    def __len__(self) -> int:
        return len(self._models)

    @property
    def models(self) -> tuple[RosterModel, ...]:
        """All models, the invalid ones too, in the order of their ids."""
        return tuple(self._models.values())

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
        name = model.found.id
        entry = model.entry or ModelEntry(name=name)
        figure = figure or Figure()
        # Apart, so that a group that is called like a loner's id is not its group.
        group = f"group {model.group}" if model.group else f"model {name}"
        if is_memory_aware and figure.memory and not model.group:
            group = ""
        return ModelSpec(
            name=name,
            group=group,
            fingerprint=_fingerprint(model),
            ready_timeout_s=router.load_deadline_s(model.found.size_bytes),
            stop_grace_s=router.stop_grace_s,
            drain_deadline_s=router.drain_deadline_s,
            memory=device_bytes(figure.memory) if is_memory_aware else (),
            load_cost_s=figure.load_s or USUAL_START_S + model.found.size_bytes / USUAL_BYTES_PER_S,
            pinned=entry.pinned,
            ttl_s=(router.ttl_s if entry.ttl_s is None else entry.ttl_s) or None,
            priority=entry.priority,
            max_in_flight=entry.max_in_flight or figure.slots,
            max_waiting=entry.max_waiting,
            min_residency_s=entry.min_residency_s,
        )


def take_stock(config: Config, env: Mapping[str, str], home: Path) -> Roster:
    """Look for models and lay the config over them. Reads the disk: not for the event loop."""
    folders = tuple(Path(folder) for folder in config.router.models_dirs)
    return build_roster(config, discover(Sources(folders, env, home)))


def take_demo_stock(config: Config, env: Mapping[str, str], home: Path) -> Roster:  # noqa: ARG001
    """Look into the config's own folders only, not into the person's caches."""
    folders = tuple(Path(folder) for folder in config.router.models_dirs)
    # No variables, and a home without caches in it.
    return build_roster(config, discover(Sources(folders, {}, folders[0])))


def build_roster(config: Config, found: list[CatalogModel]) -> Roster:
    """Lay the config over the models found.

    A ``manual`` entry is a model of its own, and takes the place of a found one with the same file
    or id; an ``auto`` entry gives settings to the found model that it names. Several manual entries
    may run one file in several ways. An ``auto`` entry whose file is not among the finds has no
    effect; if the file exists, a warning says so.
    """
    finds = _Finds(found)
    by_id = {model.id: RosterModel(model, config.spawn_of(None), "") for model in found}
    entries = {
        state: [e for e in config.models if e.state == state] for state in ("auto", "manual")
    }
    for entry in entries["auto"]:
        match = finds.match(entry)
        if match is not None:
            model = msgspec.structs.replace(
                by_id[match.id].found,
                names=(*by_id[match.id].found.names, entry.name, *entry.aliases),
                mmproj=Path(entry.mmproj) if entry.mmproj else match.mmproj,
            )
            by_id[match.id] = RosterModel(model, config.spawn_of(entry), entry.group, entry)
        elif entry.path and os.path.exists(entry.path):  # noqa: PTH110  # Path's raises
            _log.warning(
                "model '%s' is left out: its file %s is in none of the folders that are searched;"
                " give the entry state: manual, or add the folder to router.models_dirs",
                entry.name,
                entry.path,
            )
    for entry in entries["manual"]:
        twin = finds.with_file(entry.path)
        if twin is not None:
            by_id.pop(twin.id, None)
    for entry in entries["manual"]:
        manual = _manual(entry, finds.with_file(entry.path))
        by_id[entry.name] = RosterModel(manual, config.spawn_of(entry), entry.group, entry)
    return Roster([by_id[model_id] for model_id in sorted(by_id)], config)


class _Finds:
    """What was found on disk, by what an entry of the config may say of it."""

    def __init__(self, found: list[CatalogModel]) -> None:
        self._by_id = {model.id: model for model in found}
        self._by_file: dict[str, CatalogModel] = {}
        self._by_name: dict[str, CatalogModel] = {}
        for model in found:
            if model.path is not None:
                self._by_file.setdefault(os.path.realpath(model.path), model)
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
        return self._by_file.get(os.path.realpath(path)) if path else None


def _manual(entry: ModelEntry, twin: CatalogModel | None) -> CatalogModel:
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
            size_bytes=twin.size_bytes,
            modified_at_s=twin.modified_at_s,
            invalid=twin.invalid,
        )
    try:
        status = path.stat()
    except OSError as error:
        problem = f"its file {path} cannot be read: {error.strerror}"
        return msgspec.structs.replace(model, invalid=problem)
    return msgspec.structs.replace(model, size_bytes=status.st_size, modified_at_s=status.st_mtime)


def device_bytes(memory: Mapping[str, int]) -> tuple[DeviceBytes, ...]:
    """Return amounts by device as the core knows them."""
    return tuple(DeviceBytes(device, size_bytes) for device, size_bytes in sorted(memory.items()))


def _fingerprint(model: RosterModel) -> str:
    """Return a value that changes when a running engine would not be what the config asks for."""
    parts = (
        model.spawn.command,
        model.spawn.health_endpoint,
        model.spawn.owner_check,
        str(model.found.path),
        str(model.found.mmproj),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
