"""Deleting a model's files: those that nothing else uses."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.control.facade import ControlError
from llama_router.control.facades import DeletedInfo

_SUFFIX = ".gguf"


class HubCache(Protocol):
    """Who knows the hub's cache, where several models may share a file."""

    def holds(self, path: Path) -> bool:
        """Whether a file is in it."""

    async def delete(self, model: str, paths: tuple[Path, ...]) -> DeletedInfo:
        """Delete a model's files, and look around. Raises ControlError."""


async def delete_files(
    found: CatalogModel, cache: HubCache, rescan: Callable[[], Awaitable[object]]
) -> DeletedInfo:
    """Delete the files of a model that was found on disk and does not run, and look around.

    On the data plane's loop. Raises ControlError.
    """
    if found.source is ModelSource.CONFIG or found.path is None:
        message = f"'{found.id}' stands in the config file: take it out there"
        raise ControlError(409, "not_deletable", message)
    paths = found.parts or (found.path,)
    if all(cache.holds(path) for path in paths):
        return await cache.delete(found.id, paths)
    deleted = await asyncio.to_thread(_unlink, found.id, paths)
    await rescan()
    return deleted


def _unlink(model: str, paths: tuple[Path, ...]) -> DeletedInfo:
    freed_bytes = 0
    for path in paths:
        try:
            status = os.lstat(path)
            is_file = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            if path.suffix.lower() != _SUFFIX or not is_file:
                raise ControlError(409, "not_deletable", f"{path} is no model's file")
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"{path} cannot be deleted: {error.strerror}"
            raise ControlError(409, "not_deletable", message) from None
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            freed_bytes += status.st_size
    return DeletedInfo(model=model, files=tuple(map(str, paths)), freed_bytes=freed_bytes)
