"""What the catalogue knows of one model."""

from enum import Enum
from pathlib import Path

import msgspec


class ModelSource(Enum):
    """Where a model was found."""

    HUB_CACHE = "hub_cache"
    LLAMA_CACHE = "llama_cache"
    MODELS_DIR = "models_dir"
    CONFIG = "config"


class CatalogModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model: a GGUF file, or the first of its split files, with what belongs to it.

    ``id`` is how requests name it; ``names`` are further names that resolve to it (file name, stem,
    aliases). ``path`` is empty only for ``manual`` models whose command needs none. ``parts`` are
    all files of a split model, none of one that is not split; ``size_bytes`` sums them.
    ``invalid`` says why it cannot be run; empty if it can.
    """

    id: str
    path: Path | None
    source: ModelSource
    names: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()
    mmproj: Path | None = None
    size_bytes: int = 0
    modified_at_s: float = 0.0
    invalid: str = ""
