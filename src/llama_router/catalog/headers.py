"""What telling models apart takes of a file's header, and what of it is shown to people."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from llama_router.catalog.gguf_reader import GgufError, GgufInfo, read_gguf
from llama_router.catalog.model import Metadata

# llama_pooling_type of llama.h.
_POOLING_MEAN, _POOLING_CLS, _POOLING_LAST, _POOLING_RANK = 1, 2, 3, 4
# Encoders of llama.cpp: whatever they say of pooling, they cannot write.
_ENCODERS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
_MAX_NAME_CHARS = 64  # of an architecture; real ones have up to 20


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one file says: what kind of file it is, and the metadata of its model."""

    architecture: str = ""
    general_type: str = ""
    split_no: int = 0
    split_count: int = 1
    tensor_count: int = 0
    is_adapter: bool = False
    has_vision: bool = False
    has_audio: bool = False
    metadata: Metadata = Metadata()


class Headers(Protocol):
    """Where headers come from: the files themselves, or what is remembered of them.

    A scan says here where it is before it asks the disk for anything, as a disk may never answer.
    """

    def looks_into(self, folder: Path) -> bool:
        """Note that something in this folder is looked at now; False: it is to be left out."""

    def of(self, path: Path, status: os.stat_result) -> "Header | GgufError":
        """Return the header of a file of which this is the status, or why there is none."""


class FreshHeaders:
    """Reads each file."""

    def looks_into(self, folder: Path) -> bool:  # noqa: ARG002
        """See Headers."""
        return True

    def of(self, path: Path, status: os.stat_result) -> Header | GgufError:  # noqa: ARG002
        """See Headers."""
        return read_header(path)


def read_header(path: Path, on_read: Callable[[], object] = lambda: None) -> Header | GgufError:
    """Read the header of a file, or say why that cannot be done. Raises nothing for a file."""
    try:
        return header_of(read_gguf(path, on_read=on_read))
    except GgufError as error:
        return error


def header_of(info: GgufInfo) -> Header:
    """Give of a header what is kept."""
    return Header(
        architecture=info.architecture[:_MAX_NAME_CHARS],
        general_type=info.general_type[:_MAX_NAME_CHARS],
        split_no=info.split_no,
        split_count=info.split_count,
        tensor_count=info.tensor_count,
        is_adapter="adapter.type" in info.about,
        has_vision=info.has_vision,
        has_audio=info.has_audio,
        metadata=_metadata_of(info),
    )


def _metadata_of(info: GgufInfo) -> Metadata:
    def first(key: str) -> str:
        return info.about.get(key, ("",))[0]

    pooling = max(info.parameters.get("pooling_type", (0,)))
    return Metadata(
        architecture="".join(c for c in info.architecture[:_MAX_NAME_CHARS] if c.isprintable()),
        name=first("general.name") or first("general.basename"),
        parameter_count=info.parameter_count,
        quantisation=info.quantization,
        context_length=info.context_length,
        embedding_length=info.embedding_length,
        layers=info.block_count,
        expert_count=info.expert_count,
        vocabulary=info.vocab_size,
        has_chat_template=info.has_chat_template,
        embedding=_is_embedding(info, pooling),
        reranker=pooling == _POOLING_RANK,
        license=first("general.license") or first("general.license.name"),
        base_models=_base_models(info),
        tags=info.about.get("general.tags", ()),
        languages=info.about.get("general.languages", ()),
        size_label=first("general.size_label"),
    )


def _is_embedding(info: GgufInfo, pooling: int) -> bool:
    if pooling == _POOLING_RANK:
        return False
    if info.architecture in _ENCODERS or pooling in (_POOLING_CLS, _POOLING_LAST):
        return True
    # A mean is also said of models that write.
    return pooling == _POOLING_MEAN and not info.has_chat_template


def _base_models(info: GgufInfo) -> tuple[str, ...]:
    """Name what this model was made from, as hub repositories where the file says so."""
    names: dict[str, str] = {}
    for key in sorted(info.about):
        if key.startswith("general.base_model."):
            number, _dot, part = key.removeprefix("general.base_model.").partition(".")
            text = info.about[key][0]
            if part == "repo_url":  # sorts after "name" and says more
                text = text.removeprefix("https://huggingface.co/")
            names[number] = text
    return tuple(dict.fromkeys(names.values()))
