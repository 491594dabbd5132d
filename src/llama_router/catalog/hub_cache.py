"""Hugging Face's cache: ``models--org--repo/{refs,blobs,snapshots}``.

Directory, ids and the choice of the projector as llama.cpp has them: ``common/hf-cache.cpp`` and
``common/download.cpp``.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from llama_router.catalog.candidate import Candidate, GgufFile, best_draft, model_groups
from llama_router.catalog.folders import walk
from llama_router.catalog.headers import Headers
from llama_router.catalog.model import ModelSource

_MAX_REPOS = 50_000
_MAX_REFS = 1000
_MAX_REF_BYTES = 256
_NAME = r"[A-Za-z0-9_.]+(?:-[A-Za-z0-9_.]+)*"  # "--" stands for a slash
_REPO = re.compile(rf"models--({_NAME})--({_NAME})")
_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_DEFAULT_TAGS = ("Q4_K_M", "Q8_0")  # for a repository named without one


def directory(env: Mapping[str, str], home: Path) -> Path:
    """Give the cache's directory: the first variable that is set decides."""
    for variable, below in (
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if env.get(variable):
            return Path(env[variable], below)
    return home / ".cache" / "huggingface" / "hub"


def scan(cache: Path, headers: Headers) -> list[Candidate]:
    """Find the models of all repositories in the cache."""
    found: list[Candidate] = []
    if not headers.looks_into(cache):
        return found
    for name in _listing(cache, _MAX_REPOS):
        match = _REPO.fullmatch(name)
        if match and headers.looks_into(cache / name):
            found += _scan_repo(cache / name, f"{match[1]}/{match[2]}", headers)
    return found


def _scan_repo(folder: Path, repo: str, headers: Headers) -> list[Candidate]:
    commit = _commit(folder / "refs")
    if not commit:
        return []
    # Snapshots are links into the repository's blobs: the links may not leave the repository.
    files = list(walk(folder / "snapshots" / commit, headers, stay_below=folder))
    projectors = [file for file in files if file.is_projector]
    drafts = [file for file in files if file.draft_kind is not None]
    groups = list(model_groups(files))
    default = _default(groups)
    found = []
    for parts, missing in groups:
        first = parts[0]
        longer_id = f"{repo}/{first.split[0]}"
        names = (first.relative.name, first.stem, *((repo,) if first is default else ()))
        found.append(
            Candidate(
                id=f"{repo}:{first.tag}" if first.tag else longer_id,
                longer_id=longer_id,
                longest_id=longer_id,
                names=names,
                source=ModelSource.HUB_CACHE,
                parts=parts,
                mmproj=_nearest_projector(projectors, first),
                draft=best_draft(_around(drafts, first), first),
                missing=missing,
            )
        )
    return found


def _default(groups: list[tuple[tuple[GgufFile, ...], str]]) -> GgufFile | None:
    """Choose what the repository's bare name means."""
    firsts = [parts[0] for parts, _missing in groups]
    for tag in _DEFAULT_TAGS:
        for first in firsts:
            if first.tag == tag:
                return first
    return firsts[0] if firsts else None


def _commit(refs: Path) -> str:
    """Read the commit that is checked out: that of "main", else of any ref; empty if none."""
    for name in sorted(_listing(refs, _MAX_REFS), key=lambda name: (name != "main", name)):
        try:
            if not (refs / name).is_file():
                continue
            with (refs / name).open("rb") as file:
                commit = file.read(_MAX_REF_BYTES).decode("ascii", "replace").strip()
        except OSError:
            continue
        if _COMMIT.fullmatch(commit):
            return commit
    return ""


def _nearest_projector(projectors: list[GgufFile], model: GgufFile) -> GgufFile | None:
    """Choose the projector in the deepest folder around the model, then of the nearest type."""
    return min(
        _around(projectors, model),
        key=lambda file: (
            -len(file.relative.parts),
            abs(file.bits - model.bits),
            str(file.relative),
        ),
        default=None,
    )


def _around(files: list[GgufFile], model: GgufFile) -> list[GgufFile]:
    """Give those in the model's folder, or in one that holds it."""
    model_folder = model.relative.parent
    return [file for file in files if model_folder.is_relative_to(file.relative.parent)]


def _listing(folder: Path, max_entries: int) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())[:max_entries]
    except OSError:
        return []
