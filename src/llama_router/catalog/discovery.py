"""Finds models on disk: Hugging Face's cache, llama.cpp's own cache of 2025, folders."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_router.catalog import folders, hub_cache, llama_cache
from llama_router.catalog.candidate import Candidate
from llama_router.catalog.model import CatalogModel


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look. ``env`` and ``home`` place the caches; ``platform`` is a `sys.platform`."""

    models_dirs: tuple[Path, ...]
    env: Mapping[str, str]
    home: Path
    platform: str = field(default=sys.platform)


def discover(sources: Sources) -> list[CatalogModel]:
    """Find all models, sorted by id, each id once.

    A file that is found twice belongs to the first of: hub cache, llama.cpp's cache, the folders
    in their order. Files that cannot be used are listed too, with ``invalid`` saying why. Never
    raises for what is on disk. Blocks on the disk and takes CPU time: not for an event loop.
    """
    models: dict[str, CatalogModel] = {}
    known_files: set[tuple[int, int]] = set()
    for candidates in _scans(sources):
        # Within one source two names of one file are two models: a hub snapshot may say so.
        fresh = [found for found in candidates if found.file_key not in known_files]
        known_files.update(found.file_key for found in fresh)
        for found in sorted(fresh, key=lambda found: (found.id, found.longer_id)):
            model_id = _free_id(found, models)
            models[model_id] = found.model(model_id)
    return [models[model_id] for model_id in sorted(models)]


def _scans(sources: Sources) -> Iterator[list[Candidate]]:
    env, home = sources.env, sources.home
    yield hub_cache.scan(hub_cache.directory(env, home))
    yield llama_cache.scan(llama_cache.directory(env, home, sources.platform))
    for root in sources.models_dirs:
        yield folders.scan(root)


def _free_id(found: Candidate, taken: Mapping[str, object]) -> str:
    for model_id in (found.id, found.longer_id, found.longest_id):
        if model_id not in taken:
            return model_id
    number = 2
    while f"{found.longest_id}~{number}" in taken:
        number += 1
    return f"{found.longest_id}~{number}"
