"""Which models there are and how each is run: the catalogue's finds under the config's settings."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.resolve import Catalog
from llama_router.config.schema import Config, ModelEntry, SpawnSettings
from llama_router.core.events import ModelSpec
from llama_router.engines.kinds import CommandTemplate, ModelFacts
from llama_router.engines.launch import OwnerCheck


class RosterModel(msgspec.Struct, frozen=True):
    """One model with everything that is needed to run it."""

    found: CatalogModel
    spawn: SpawnSettings
    group: str

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

    def specs(self) -> tuple[ModelSpec, ...]:
        """Return what the core is to know: only models that can be run."""
        return tuple(self._spec(model) for model in self.models if not model.found.invalid)

    def _spec(self, model: RosterModel) -> ModelSpec:
        router = self._config.router
        return ModelSpec(
            name=model.found.id,
            group=model.group,
            fingerprint=_fingerprint(model),
            ready_timeout_s=router.load_deadline_s(model.found.size_bytes),
            stop_grace_s=router.stop_grace_s,
            drain_deadline_s=router.drain_deadline_s,
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
    or id; an ``auto`` entry gives settings to the found model that it names.
    """
    by_id = {model.id: RosterModel(model, config.spawn_of(None), model.id) for model in found}
    for entry in config.models:
        if entry.state == "manual":
            model = _manual(entry, by_id)
            by_id[entry.name] = RosterModel(model, config.spawn_of(entry), entry.group or model.id)
            continue
        match = _match(entry, by_id)
        if match is not None:
            model = msgspec.structs.replace(
                match,
                names=(*match.names, entry.name, *entry.aliases),
                mmproj=Path(entry.mmproj) if entry.mmproj else match.mmproj,
            )
            by_id[match.id] = RosterModel(model, config.spawn_of(entry), entry.group or match.id)
    return Roster([by_id[model_id] for model_id in sorted(by_id)], config)


def _match(entry: ModelEntry, by_id: Mapping[str, RosterModel]) -> CatalogModel | None:
    """Return the found model that an entry speaks of: by id, else by file, else by a name."""
    if entry.name in by_id:
        return by_id[entry.name].found
    for model in by_id.values():
        if entry.path and model.found.path is not None and _same(entry.path, model.found.path):
            return model.found
    for model in by_id.values():
        if entry.name in model.found.names:
            return model.found
    return None


def _same(path: str, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _manual(entry: ModelEntry, by_id: dict[str, RosterModel]) -> CatalogModel:
    path = Path(entry.path) if entry.path else None
    twin = None
    if path is not None:
        twin = next(
            (m.found for m in by_id.values() if m.found.path and _same(entry.path, m.found.path)),
            None,
        )
        if twin is not None:
            del by_id[twin.id]
    mmproj = Path(entry.mmproj) if entry.mmproj else twin.mmproj if twin is not None else None
    names = [*entry.aliases]
    if path is not None:
        names += [path.name, path.stem]
    size_bytes, modified_at_s, invalid = 0, 0.0, ""
    if path is not None:
        try:
            status = path.stat()
            size_bytes, modified_at_s = status.st_size, status.st_mtime
        except OSError as error:
            invalid = f"its file {path} cannot be read: {error.strerror}"
    if twin is not None:
        size_bytes, invalid = twin.size_bytes, twin.invalid
    return CatalogModel(
        id=entry.name,
        path=path,
        source=ModelSource.CONFIG,
        names=tuple(name for name in dict.fromkeys(names) if name != entry.name),
        parts=twin.parts if twin is not None else (path,) if path is not None else (),
        mmproj=mmproj,
        size_bytes=size_bytes,
        modified_at_s=modified_at_s,
        invalid=invalid,
    )


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
