"""Stores of models as other programs lay them out."""

import json
from pathlib import Path


def stored_model(store: Path, name: str, tag: str, *, with_projector: bool = False) -> Path:
    """Lay out a model as Ollama does; give its file."""
    digests = {"model": "a" * 64} | ({"projector": "b" * 64} if with_projector else {})
    for digest in digests.values():
        blob = store / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.touch()
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / name / tag
    manifest.parent.mkdir(parents=True)
    layers = [
        {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"}
        for kind, digest in digests.items()
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return store / "blobs" / f"sha256-{digests['model']}"
