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


# gc=False: there are tens of thousands, they hold no cycles, and a collection looks at none of it.
class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a model's files say of it, for people and for the listing.

    All texts are the file's author's: short, without control characters, and otherwise anything.
    Numbers that are not stated are 0. ``parameter_count`` is that of all parts. ``quantisation`` is
    the file type's name in llama.cpp ("Q4_K_M"). ``modalities`` are "text" and what the projector
    adds ("vision", "audio"). ``embedding``: made for embeddings, ``reranker``: for ranking.
    """

    architecture: str = ""
    name: str = ""
    parameter_count: int = 0
    quantisation: str = ""
    context_length: int = 0
    embedding_length: int = 0
    layers: int = 0
    expert_count: int = 0
    vocabulary: int = 0
    modalities: tuple[str, ...] = ("text",)
    has_chat_template: bool = False
    embedding: bool = False
    reranker: bool = False
    license: str = ""
    base_models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    size_label: str = ""


class CatalogModel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One model: a GGUF file, or the first of its split files, with what belongs to it.

    ``id`` is how requests name it; ``names`` are further names that resolve to it (file name, stem,
    aliases). ``path`` is empty only for ``manual`` models whose command needs none. ``parts`` are
    all files of a split model, none of one that is not split; ``size_bytes`` sums them.
    ``real_path`` is where ``path`` really leads, None where it is without links. ``draft`` is a
    small model beside it that drafts tokens for it (``mtp-``, ``eagle3-``, ...).
    ``invalid`` says why it cannot be run; empty if it can. ``metadata`` is None for what was not
    read.
    """

    id: str
    path: Path | None
    source: ModelSource
    names: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()
    mmproj: Path | None = None
    draft: Path | None = None
    size_bytes: int = 0
    modified_at_s: float = 0.0
    invalid: str = ""
    real_path: Path | None = None
    metadata: Metadata | None = None
