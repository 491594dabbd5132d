"""Which models of a folder are to be entries of the config, and as what."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from llama_router.catalog.model import CatalogModel
from llama_router.config.schema import Config


class Picked(msgspec.Struct, frozen=True):
    """Entries to be added, the ids of models that the config has already, and what was left out."""

    entries: tuple[dict[str, Any], ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


def pick(config: Config, found: Sequence[CatalogModel], state: str) -> Picked:
    """Return what a folder's models come to. Reads the disk.

    A model is there already when an entry has its file or its name.
    """
    names = {name for entry in config.models for name in (entry.name, *entry.aliases)}
    files = {os.path.realpath(entry.path) for entry in config.models if entry.path}
    entries: list[dict[str, Any]] = []
    skipped: list[str] = []
    warnings: list[str] = []
    for model in found:
        if model.invalid or model.path is None:
            warnings.append(f"{model.id} is left out: {model.invalid or 'it has no file'}")
        elif not _is_text(str(model.path)):
            warnings.append(f"{model.id} is left out: its path is no text that a config can hold")
        elif os.path.realpath(model.path) in files:
            skipped.append(model.id)
        elif model.id in names:
            skipped.append(model.id)
            warnings.append(f"{model.id} is the name of another model already")
        else:
            names.add(model.id)
            entry = {"name": model.id, "path": str(model.path), "state": state}
            if model.mmproj is not None:
                entry["mmproj"] = str(model.mmproj)
            entries.append(entry)
    return Picked(tuple(entries), tuple(skipped), tuple(warnings))


def _is_text(path: str) -> bool:
    """Tell whether all bytes of a path are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
