"""The hub's cache as huggingface_hub and llama.cpp have it.

``models--org--repo/{blobs/<hash>, snapshots/<commit>/<path>, refs/main}``; what stands in a
snapshot is a relative link to a blob, or the file itself where there are no links.
"""

import contextlib
import os
import shutil
from pathlib import Path

from llama_router.hub.errors import HubError
from llama_router.hub.locks import lock_path
from llama_router.hub.names import check_commit, folder_name, is_blob_name, is_safe_path

PART_SUFFIX = ".llama-router.incomplete"
# Who watches the cache for models passes over both.
JOURNAL_SUFFIX = ".llama-router.journal.part"
# What a killed process leaves under such a name is replaced the next time.
TEMPORARY_SUFFIX = ".llama-router.tmp"
_MAIN = "main"
_REF_MAX_BYTES = 256


class RepoFolder:
    """A repository's folder in the cache, which need not exist."""

    def __init__(self, cache: Path, repo: str) -> None:
        self.cache = cache
        self.repo = repo
        self.name = folder_name(repo)
        self.path = cache / self.name
        self.blobs = self.path / "blobs"
        self.snapshots = self.path / "snapshots"
        self.refs = self.path / "refs"

    def blob(self, name: str) -> Path:
        """Return where a blob is once it is complete."""
        if not is_blob_name(name):
            raise HubError("bad_answer", f"{name[:80]!r} is no hash")
        return self.blobs / name

    def part(self, blob: str) -> Path:
        """Return where a blob is as long as it is not complete."""
        return self.blob(blob).with_name(blob + PART_SUFFIX)

    def journal(self, blob: str) -> Path:
        """Return where it is noted what is known of a part."""
        return self.blob(blob).with_name(blob + JOURNAL_SUFFIX)

    def has(self, blob: str, size_bytes: int) -> bool:
        """Whether a blob is complete; of whole hashes, only the size is looked at again."""
        try:
            status = self.blob(blob).stat()
        except OSError:
            return False
        return status.st_size == size_bytes

    def prepare(self) -> None:
        """Make the folders. Raises OSError."""
        for folder in (self.blobs, self.snapshots):
            folder.mkdir(parents=True, exist_ok=True)

    def main_commit(self) -> str:
        """Return the commit of "main"; empty if there is none."""
        try:
            with (self.refs / _MAIN).open("rb") as file:
                commit = file.read(_REF_MAX_BYTES).decode("ascii", "replace").strip()
            check_commit(commit)
        except (OSError, HubError):
            return ""
        return commit

    def set_main(self, commit: str) -> None:
        """Check a commit out, once its snapshot is there. Raises OSError."""
        check_commit(commit)
        self.refs.mkdir(parents=True, exist_ok=True)
        # Without a line's end: huggingface_hub takes the whole content.
        replace_file(self.refs / _MAIN, commit.encode())

    def link(self, commit: str, path: str, blob: str) -> Path:
        """Make a file of a snapshot lead to its blob; return it. Raises HubError, OSError."""
        check_commit(commit)
        if not is_safe_path(path):
            raise HubError("bad_answer", f"{path[:100]!r} must not be written to")
        snapshot = self.snapshots / commit
        target = snapshot.joinpath(*path.split("/"))
        blob_path = self.blob(blob)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(snapshot.parent.resolve()):
            raise HubError("disk_failed", f"{target.parent} leads out of the cache")
        with contextlib.suppress(OSError):
            if target.samefile(blob_path):
                return target
        relative = os.path.relpath(blob_path, target.parent)
        # A name of its own first: nobody ever finds the path without its file.
        made = target.with_name(f".{blob[:16]}{TEMPORARY_SUFFIX}")
        made.unlink(missing_ok=True)
        try:
            made.symlink_to(relative)
        except (OSError, NotImplementedError):
            # Windows without the right to make links, or a file system that has none.
            shutil.copyfile(blob_path, made)
        made.replace(target)
        return target


def publish_lock(folder: RepoFolder) -> Path:
    """Return the lock that whoever changes a repository's snapshots holds."""
    return lock_path(folder.cache, folder.name, "llama-router-snapshots")


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole, or as before. Raises OSError."""
    made = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    with made.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder outlive a power cut, where that can be done."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
