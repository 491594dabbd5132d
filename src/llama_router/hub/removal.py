"""Taking a model out of the cache: what it alone uses, and nothing else.

A blob goes when no snapshot leads to it any more. Links in snapshots that no ref names count for
nothing: nobody finds them by name, and they would keep the disk full. No link is ever followed out
of the repository's folder.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import msgspec

from llama_router.hub.choice import RepoFile, contents_of
from llama_router.hub.errors import HubError
from llama_router.hub.layout import PART_SUFFIX, TEMPORARY_SUFFIX, RepoFolder, publish_lock
from llama_router.hub.locks import lock_path, try_lock
from llama_router.hub.names import check_repo, is_blob_name
from llama_router.hub.part import disk_error, remove_part

_FOLDER = re.compile(r"models--([A-Za-z0-9_.-]+?)--([A-Za-z0-9_.-]+)")
_MAX_FOLDERS = 100_000
# What huggingface_hub keeps beside a repository's files.
_ACCESSORIES = ("refs", "trees", ".no_exist", "snapshots", "blobs")
_SNAPSHOT_DEPTH = 3


class Removed(msgspec.Struct, frozen=True):
    """``freed_bytes``: what the disk has more of now. ``files``: names that are gone."""

    freed_bytes: int
    files: tuple[str, ...]


def remove_model(cache: Path, paths: Iterable[Path]) -> Removed:
    """Remove a model; ``paths`` are its files in a snapshot, all parts. Blocks. Raises HubError.

    Its projector goes too unless another model of the snapshot uses it.
    """
    located = [_locate(cache, path) for path in paths]
    if not located:
        raise HubError("bad_request", "there is no file to remove")
    folder, commit, _relative = located[0]
    if any((one.path, other) != (folder.path, commit) for one, other, _ in located):
        raise HubError("bad_request", "the files are not of one snapshot")
    try:
        return _remove(folder, commit, {relative for _, _, relative in located})
    except OSError as error:
        raise disk_error(folder.snapshots, error) from None


def discard_parts(
    cache: Path, repo: str, blobs: Iterable[str], kept: Container[str] = frozenset()
) -> int:
    """Remove what has come of a download that is given up; return its bytes. Raises HubError.

    What a snapshot leads to stays, and what this process goes on with: those that are ``kept``. So
    do files that are being downloaded elsewhere, and whole ones beside them: whoever does so counts
    on those until its snapshot is made, and has no lock on them any more. In a thread.
    """
    check_repo(repo)
    folder = RepoFolder(cache, repo)
    given_up = [blob for blob in dict.fromkeys(blobs) if blob not in kept]
    with contextlib.ExitStack() as held:
        ours = [
            blob for blob in given_up if _is_held(held, folder, lock_path(cache, folder.name, blob))
        ]
        freed_bytes = sum(remove_part(folder, blob) for blob in ours)
        # Whoever has the lock makes a snapshot, or removes one.
        if len(ours) == len(given_up) and _is_held(held, folder, publish_lock(folder)):
            used = {_blob_of(folder, path) for path in _files(folder.snapshots)}
            freed_bytes += sum(_unlink(folder.blob(blob)) for blob in ours if blob not in used)
    return freed_bytes


def _locate(cache: Path, path: Path) -> tuple[RepoFolder, str, str]:
    """Return repository, commit and path within the snapshot. Raises HubError."""
    outside = HubError("bad_request", f"{path} is not in the hub's cache {cache}")
    try:
        parts = Path(os.path.abspath(path)).relative_to(os.path.abspath(cache)).parts  # noqa: PTH100 - links stay
    except ValueError:
        raise outside from None
    match = _FOLDER.fullmatch(parts[0]) if parts else None
    if match is None or len(parts) <= _SNAPSHOT_DEPTH or parts[1] != "snapshots":
        raise outside
    repo = f"{match[1]}/{match[2]}"
    check_repo(repo)
    folder = RepoFolder(cache, repo)
    # Each of them may have been put elsewhere by a link, and what is there is not the cache's.
    for inner in (folder.path, folder.snapshots, folder.snapshots / parts[2], folder.blobs):
        if inner.is_symlink():
            raise HubError("bad_request", f"{inner} is a link: remove what it leads to by hand")
    below = parts[_SNAPSHOT_DEPTH:]
    for depth in range(1, len(below)):
        if (folder.snapshots / parts[2]).joinpath(*below[:depth]).is_symlink():
            raise outside
    return folder, parts[2], "/".join(below)


def _remove(folder: RepoFolder, commit: str, wanted: set[str]) -> Removed:
    snapshot = folder.snapshots / commit
    present = {path.relative_to(snapshot).as_posix(): path for path in _files(snapshot)}
    missing = wanted - present.keys()
    if missing:
        raise HubError("not_found", f"{snapshot / min(missing)} does not exist")
    wanted |= _unused_projectors(folder.repo, commit, set(present), wanted)
    blobs = {_blob_of(folder, present[name]) for name in wanted} - {""}
    with contextlib.ExitStack() as held:
        _hold(held, folder, publish_lock(folder))
        for blob in sorted(blobs):
            _hold(held, folder, lock_path(folder.cache, folder.name, blob))
        freed_bytes = sum(_unlink(present[name]) for name in sorted(wanted))
        freed_bytes += _drop_forgotten_links(folder, commit, blobs)
        used = {_blob_of(folder, path) for path in _files(folder.snapshots)}
        for blob in blobs - used:
            freed_bytes += _unlink(folder.blob(blob))
            freed_bytes += remove_part(folder, blob)
    _remove_empty(folder)
    return Removed(freed_bytes, tuple(sorted(wanted)))


def _hold(held: contextlib.ExitStack, folder: RepoFolder, lock: Path) -> None:
    """Keep downloads away. Raises HubError if one is under way."""
    if not _is_held(held, folder, lock):
        raise HubError("busy", f"{folder.repo} is being downloaded; cancel that first")


def _is_held(held: contextlib.ExitStack, folder: RepoFolder, lock: Path) -> bool:
    """Take a lock until ``held`` ends; False if another has it. Raises HubError."""
    try:
        descriptor = try_lock(lock)
    except OSError as error:
        raise disk_error(folder.blobs, error) from None
    if descriptor is None:
        return False
    held.callback(os.close, descriptor)
    return True


def _unused_projectors(repo: str, commit: str, present: set[str], wanted: set[str]) -> set[str]:
    """Return the projectors that no model uses any more once the wanted files are gone."""
    before = contents_of(repo, commit, [RepoFile(name, 0, "") for name in sorted(present)])
    after = contents_of(repo, commit, [RepoFile(name, 0, "") for name in sorted(present - wanted)])
    used_before = {one.projector.path for one in before.variants if one.projector is not None}
    still_used = {one.projector.path for one in after.variants if one.projector is not None}
    # Where no model is left, those that were only the second choice have no use either.
    unused = {one.path for one in after.projectors} if not after.variants else used_before
    return unused - still_used - wanted


def _drop_forgotten_links(folder: RepoFolder, commit: str, blobs: set[str]) -> int:
    named = set(_refs(folder))
    freed_bytes = 0
    for snapshot in _folders(folder.snapshots):
        for path in list(_files(snapshot)):
            is_ours = path.name.endswith(TEMPORARY_SUFFIX)
            is_forgotten = snapshot.name not in named and snapshot.name != commit
            if (is_ours or is_forgotten) and _blob_of(folder, path) in blobs:
                freed_bytes += _unlink(path)
    return freed_bytes


def _blob_of(folder: RepoFolder, path: Path) -> str:
    """Return the blob that a snapshot's file leads to in one step; empty if it is none of ours."""
    try:
        target = os.path.normpath(path.parent / path.readlink())
    except OSError:
        return ""
    found = Path(target)
    is_ours = found.parent == Path(os.path.normpath(folder.blobs)) and is_blob_name(found.name)
    return found.name if is_ours else ""


def _unlink(path: Path) -> int:
    """Remove a name; return the bytes that this freed: of a link, or of one of several, none."""
    try:
        status = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0


def _remove_empty(folder: RepoFolder) -> None:
    """Remove folders that hold nothing, refs to them, and the repository if that was all."""
    for snapshot in _folders(folder.snapshots):
        for path in sorted(_subfolders(snapshot), reverse=True):
            _rmdir(path)
        _rmdir(snapshot)
        if not snapshot.exists():
            (folder.path / "trees" / f"{snapshot.name}.json").unlink(missing_ok=True)
    for ref in list(_files(folder.refs)):
        # huggingface_hub calls a cache broken whose refs name commits that are not there.
        if not (folder.snapshots / _read_ref(ref)).is_dir():
            ref.unlink(missing_ok=True)
    has_parts = any(path.name.endswith(PART_SUFFIX) for path in _files(folder.blobs))
    is_used = has_parts or next(_files(folder.snapshots), None) is not None
    has_blobs = any(is_blob_name(path.name) for path in _files(folder.blobs))
    if is_used or has_blobs:
        return
    for name in _ACCESSORIES:
        inner = folder.path / name
        if not inner.is_symlink():
            shutil.rmtree(inner, ignore_errors=True)
    _rmdir(folder.path)


def _refs(folder: RepoFolder) -> Iterator[str]:
    return (_read_ref(path) for path in _files(folder.refs))


def _read_ref(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # Never the empty path, which is the folder of all snapshots.
            return file.read(256).decode("ascii", "replace").strip().replace("/", "_") or "none"
    except OSError:
        return "none"


def _files(folder: Path) -> Iterator[Path]:
    """Find what is no folder, links included, without following any. Raises HubError."""
    for count, (base, _folders_there, names) in enumerate(os.walk(folder, followlinks=False)):
        if count > _MAX_FOLDERS:
            # What is not seen might use what is to go.
            raise HubError("disk_failed", f"{folder} has more than {_MAX_FOLDERS} folders")
        for name in names:
            yield Path(base, name)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _subfolders(folder: Path) -> list[Path]:
    return [
        Path(base, name)
        for base, names, _files_there in os.walk(folder, followlinks=False)
        for name in names
        if not Path(base, name).is_symlink()
    ]


def _rmdir(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
