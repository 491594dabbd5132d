"""Finds models on disk: Hugging Face's cache, llama.cpp's own cache of 2025, folders."""

import logging
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llama_router.catalog import folders, hub_cache, llama_cache
from llama_router.catalog.candidate import GGUF_SUFFIX, Candidate
from llama_router.catalog.headers import FreshHeaders, Headers
from llama_router.catalog.model import CatalogModel, ModelSource

_MAX_MODELS = 50_000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. ``env`` and ``home`` place the caches; ``platform`` is a `sys.platform`.

    ``files`` are looked at wherever they are.
    """

    models_dirs: tuple[Path, ...]
    env: Mapping[str, str]
    home: Path
    platform: str = field(default=sys.platform)
    files: tuple[Path, ...] = ()

    @property
    def hub_cache(self) -> Path:
        """Where the hub's cache is."""
        return hub_cache.directory(self.env, self.home)

    @property
    def llama_cache(self) -> Path:
        """Where llama.cpp's own cache of 2025 is."""
        return llama_cache.directory(self.env, self.home, self.platform)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders that are looked at, each once."""
        return tuple(dict.fromkeys((self.hub_cache, self.llama_cache, *self.models_dirs)))


def discover(
    sources: Sources, headers: Headers | None = None, taken: Collection[str] = ()
) -> list[CatalogModel]:
    """Find all models, sorted by id, each id once and each file once.

    A file that is found several times, by links or under several names, belongs to the first of:
    hub cache, llama.cpp's cache, the folders in their order; the other names lead to it too. Files
    that cannot be used are listed with ``invalid`` saying why, unless they are found in a form that
    can be. Copies of a file are models of their own.

    Behind them, in the order of their paths, are those of ``files`` that are GGUF models and in
    none of these places: with their path as their id, and `ModelSource.CONFIG`. No id is one of
    ``taken``.

    Never raises for what is on disk. Blocks on the disk and takes CPU time: not for an event loop.
    """
    headers = headers or FreshHeaders()
    models = _arranged(_scans(sources, headers), taken)
    return [*models, *_elsewhere(sources.files, models, headers)]


def _elsewhere(
    files: Iterable[Path], found: Iterable[CatalogModel], headers: Headers
) -> Iterator[CatalogModel]:
    """Look at files that were named, with what stands beside them, unless they are found."""
    known = {str(model.real_path or model.path) for model in found}
    # Whoever reads the config will ask for all of them, whatever they are.
    there = {os.path.realpath(file): file for file in files if headers.looks_into(file.parent)}
    wanted = {real: file for real, file in there.items() if file.name.endswith(GGUF_SUFFIX)}
    wanted = {real: wanted[real] for real in sorted(wanted) if real not in known}
    # Where a link leads to, there is nothing beside it that belongs to it.
    for folder in sorted({file.parent for file in wanted.values()}):
        for candidate in folders.scan_one(folder, headers):
            first = candidate.parts[0]
            if wanted.pop(str(first.real or first.path), None) is not None:
                model = candidate.model(str(first.path))
                yield msgspec.structs.replace(model, source=ModelSource.CONFIG, names=())


def _arranged(scans: Iterable[list[Candidate]], taken: Collection[str]) -> list[CatalogModel]:
    """Give what several scans have found their ids, and each file once."""
    winners: dict[tuple[int, int] | int, Candidate] = {}
    other_names: dict[int, list[str]] = {}
    late = []
    for candidates in scans:
        for found in sorted(candidates, key=lambda found: (found.id, found.longer_id)):
            if found.invalid:
                late.append(found)
            else:
                _take(found, winners, other_names)
    for found in late:
        _take(found, winners, other_names)
    models: dict[str, CatalogModel] = {}
    reserved = frozenset(taken)
    for found in winners.values():
        model_id = _free_id(found, models, reserved)
        models[model_id] = found.model(model_id, other_names.get(id(found), ()))
    if len(models) > _MAX_MODELS:
        _logger.warning("%d models found; the first %d count", len(models), _MAX_MODELS)
    return [models[model_id] for model_id in sorted(models)[:_MAX_MODELS]]


def _take(
    found: Candidate,
    winners: dict[tuple[int, int] | int, Candidate],
    other_names: dict[int, list[str]],
) -> None:
    winner = winners.setdefault(found.parts[0].key or id(found), found)
    if winner is not found:
        other_names.setdefault(id(winner), []).extend((found.id, *found.names))


def _scans(sources: Sources, headers: Headers) -> Iterator[list[Candidate]]:
    yield hub_cache.scan(sources.hub_cache, headers)
    yield llama_cache.scan(sources.llama_cache, headers)
    for root in sources.models_dirs:
        yield folders.scan(root, headers)


def _free_id(found: Candidate, taken: Mapping[str, object], reserved: Collection[str]) -> str:
    for model_id in (found.id, found.longer_id, found.longest_id):
        if model_id not in taken and model_id not in reserved:
            return model_id
    number = 2
    while (numbered := f"{found.longest_id}~{number}") in taken or numbered in reserved:
        number += 1
    return numbered
