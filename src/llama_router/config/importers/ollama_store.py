"""Ollama's store of models: names lead to manifests, those to files named by their hashes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_router.config import files

_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST_PARTS, _NAMESPACE_PARTS = 3, 2


class StoreError(Exception):
    """A model is not in the store, or not whole; the text says what."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """The files of a model in the store."""

    path: Path
    mmproj: Path | None = None


def store_folder(env: Mapping[str, str], home: Path) -> Path:
    """Say where Ollama keeps its models."""
    return Path(env["OLLAMA_MODELS"]) if env.get("OLLAMA_MODELS") else home / ".ollama" / "models"


def find_in_store(store: Path, name: str) -> StoredModel:
    """Find a model by the name that Ollama has for it, such as ``llama3:8b``.

    Raises StoreError.
    """
    manifest = store.joinpath("manifests", *_place_of(name))
    try:
        content = json.loads(files.read_bytes(manifest))
    except files.FileError:
        raise StoreError(f"{name} is neither a file nor a model in {store}") from None
    except (ValueError, RecursionError):
        raise StoreError(f"the manifest of {name} in {store} cannot be read") from None
    layers = content.get("layers") if isinstance(content, dict) else None
    found: dict[object, Path] = {}
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict):
            digest = _DIGEST.fullmatch(str(layer.get("digest")))
            if digest is not None:
                # An adapter or a further part would be a second one: the first is the model.
                found.setdefault(layer.get("mediaType"), store / "blobs" / f"sha256-{digest[1]}")
    if _MODEL not in found:
        raise StoreError(f"the manifest of {name} in {store} names no model")
    if not found[_MODEL].is_file():
        raise StoreError(f"the file of {name} is missing in {store}; ollama pull {name} gets it")
    return StoredModel(found[_MODEL], found.get(_PROJECTOR))


def _place_of(name: str) -> tuple[str, str, str, str]:
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", _TAG)
    parts = path.split("/")
    if len(parts) < _NAMESPACE_PARTS:
        parts.insert(0, _NAMESPACE)
    if len(parts) < _HOST_PARTS:
        parts.insert(0, _HOST)
    if len(parts) != _HOST_PARTS or not all(_PART.fullmatch(part) for part in (*parts, tag)):
        raise StoreError(f"{name} is neither a file nor a name of Ollama's")
    host, namespace, model = parts
    return host, namespace, model, tag
