"""llama.cpp's own cache as it was in 2025: flat files and ``manifest=ORG=REPO=TAG.json``.

A file of a repository is named ``ORG_REPO_`` and its path there with ``_`` for ``/``; the manifest
says which files belong to a tag. Without a manifest a file goes by its stem.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from llama_router.catalog.candidate import (
    DRAFTS,
    GGUF_SUFFIX,
    PROJECTOR,
    Candidate,
    GgufFile,
    Place,
    best_draft,
    gguf_file,
    model_groups,
)
from llama_router.catalog.files import NotRegularFileError, open_regular
from llama_router.catalog.folders import best_projector
from llama_router.catalog.headers import Headers
from llama_router.catalog.model import ModelSource

_MAX_ENTRIES = 100_000  # a model has up to four: its file, its etag, manifests
_MAX_MANIFEST_BYTES = 1 << 20  # real ones have about 1 kB
_DEFAULT_TAG = "latest"  # of a manifest asked for without one


class _RepoFile(msgspec.Struct):
    rfilename: str = ""


class _ManifestFiles(msgspec.Struct, rename="camel"):
    gguf_file: _RepoFile | None = None
    mmproj_file: _RepoFile | None = None


class _Manifest(msgspec.Struct):
    id: str
    tag: str
    model_name: str
    mmproj_name: str


def directory(env: Mapping[str, str], home: Path, platform: str) -> Path:
    """Give the cache's directory (``fs_get_cache_directory`` of llama.cpp's common.cpp)."""
    if env.get("LLAMA_CACHE"):
        return Path(env["LLAMA_CACHE"])
    if platform == "darwin":
        return home / "Library" / "Caches" / "llama.cpp"
    if platform == "win32":
        return Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local", "llama.cpp")
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache", "llama.cpp")


def scan(cache: Path, headers: Headers) -> list[Candidate]:
    """Find the models directly in the cache's directory."""
    if not headers.looks_into(cache):
        return []
    try:
        with os.scandir(cache) as listing:
            entries = sorted((entry.name, entry.is_symlink()) for entry in listing)[:_MAX_ENTRIES]
    except OSError:
        return []
    root = os.path.realpath(cache)
    place = Place(cache, PurePosixPath(), root, root)
    files = [
        gguf_file(place, name, headers, is_link=is_link)
        for name, is_link in entries
        if name.endswith(GGUF_SUFFIX)
    ]
    manifests: dict[str, list[_Manifest]] = {}
    for name, _is_link in entries:
        headers.looks_into(cache)
        manifest = _manifest(cache / name)
        if manifest:
            manifests.setdefault(manifest.model_name, []).append(manifest)
    present = {file.relative.name: file for file in files if not file.problem}
    companions = _Companions(files)
    return [
        _candidate(parts, missing, manifests.get(parts[0].relative.name, []), present, companions)
        for parts, missing in model_groups(files)
    ]


def _candidate(
    parts: tuple[GgufFile, ...],
    missing: str,
    manifests: list[_Manifest],
    present: Mapping[str, GgufFile],
    companions: "_Companions",
) -> Candidate:
    first = parts[0]
    # One file can be a tag's and the default's: the tag says more.
    manifests = sorted(manifests, key=lambda manifest: (manifest.tag == _DEFAULT_TAG, manifest.id))
    own = [present[m.mmproj_name] for m in manifests if m.mmproj_name in present]
    near = companions.of(first)
    repos = [m.id.rpartition(":")[0] for m in manifests if m.tag == _DEFAULT_TAG]
    return Candidate(
        id=manifests[0].id if manifests else first.stem,
        longer_id=first.stem,
        longest_id=f"llama.cpp/{first.stem}",
        names=(*(manifest.id for manifest in manifests), *repos, first.relative.name, first.stem),
        source=ModelSource.LLAMA_CACHE,
        parts=parts,
        mmproj=own[0] if own else best_projector(file for file in near if file.is_projector),
        draft=best_draft((file for file in near if file.draft_kind is not None), first),
        missing=missing,
    )


class _Companions:
    """Projectors and drafts by what stands before the mark in a name, as in "org_repo_mmproj-f16".

    A manifest says better whose they are; there may be none.
    """

    def __init__(self, files: list[GgufFile]) -> None:
        self._by_prefix: dict[str, list[GgufFile]] = {}
        for file in files:
            if file.is_projector or file.draft_kind is not None:
                name = file.relative.name
                places = [name.lower().find(mark) for mark in (PROJECTOR, *DRAFTS)]
                prefix = name[: min((place for place in places if place >= 0), default=0)]
                if prefix:
                    self._by_prefix.setdefault(prefix, []).append(file)
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)

    def of(self, model: GgufFile) -> list[GgufFile]:
        """Give those whose repository's name the model's name begins with too."""
        name = model.relative.name
        for length in self._lengths:
            if found := self._by_prefix.get(name[:length]):
                return found
        return []


def _manifest(path: Path) -> _Manifest | None:
    """Read a manifest; None for any other file and for what is broken."""
    if not (path.name.startswith("manifest=") and path.name.endswith(".json")):
        return None
    fields = path.name.removeprefix("manifest=").removesuffix(".json").split("=")
    if len(fields) != 3 or not all(fields):  # noqa: PLR2004 - organisation, repository, tag
        return None
    organisation, repository, tag = fields
    try:
        file, _status = open_regular(path)
        with file:
            content = file.read(_MAX_MANIFEST_BYTES)
        files = msgspec.json.decode(content, type=_ManifestFiles)
    except (OSError, NotRegularFileError, msgspec.MsgspecError):
        return None
    if files.gguf_file is None or not files.gguf_file.rfilename:
        return None

    def local_name(file: _RepoFile | None) -> str:
        if file is None or not file.rfilename:
            return ""
        return f"{organisation}_{repository}_{file.rfilename}".replace("/", "_")

    return _Manifest(
        id=f"{organisation}/{repository}:{tag}",
        tag=tag,
        model_name=local_name(files.gguf_file),
        mmproj_name=local_name(files.mmproj_file),
    )
