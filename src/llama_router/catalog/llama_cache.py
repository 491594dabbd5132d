"""llama.cpp's own cache as it was in 2025: flat files and ``manifest=ORG=REPO=TAG.json``.

A file of a repository is named ``ORG_REPO_`` and its path there with ``_`` for ``/``; the manifest
says which files belong to a tag. Without a manifest a file goes by its stem.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from llama_router.catalog.candidate import (
    GGUF_SUFFIX,
    Candidate,
    GgufFile,
    gguf_file,
    model_groups,
)
from llama_router.catalog.files import NotRegularFileError, open_regular
from llama_router.catalog.model import ModelSource

_MAX_ENTRIES = 20_000
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


def scan(cache: Path) -> list[Candidate]:
    """Find the models directly in the cache's directory."""
    try:
        names = sorted(entry.name for entry in cache.iterdir())[:_MAX_ENTRIES]
    except OSError:
        return []
    root = os.path.realpath(cache)
    files = [
        gguf_file(cache / name, PurePosixPath(name), root)
        for name in names
        if name.endswith(GGUF_SUFFIX)
    ]
    present = {file.relative.name: file.path for file in files if not file.problem}
    manifests: dict[str, list[_Manifest]] = {}
    for name in names:
        manifest = _manifest(cache / name)
        if manifest:
            manifests.setdefault(manifest.model_name, []).append(manifest)
    return [
        _candidate(parts, missing, manifests.get(parts[0].relative.name, []), present)
        for parts, missing in model_groups(files)
    ]


def _candidate(
    parts: tuple[GgufFile, ...],
    missing: str,
    manifests: list[_Manifest],
    present: Mapping[str, Path],
) -> Candidate:
    first = parts[0]
    # One file can be a tag's and the default's: the tag says more.
    manifests = sorted(manifests, key=lambda manifest: (manifest.tag == _DEFAULT_TAG, manifest.id))
    projectors = [present[m.mmproj_name] for m in manifests if m.mmproj_name in present]
    repos = [m.id.rpartition(":")[0] for m in manifests if m.tag == _DEFAULT_TAG]
    return Candidate(
        id=manifests[0].id if manifests else first.stem,
        longer_id=first.stem,
        longest_id=f"llama.cpp/{first.stem}",
        names=(*(manifest.id for manifest in manifests), *repos, first.relative.name, first.stem),
        source=ModelSource.LLAMA_CACHE,
        parts=parts,
        mmproj=projectors[0] if projectors else None,
        missing=missing,
    )


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
