"""The control plane's way to the hub and to what is being downloaded."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from llama_router.control.facade import ControlError
from llama_router.control.facades import DownloadInfo, FileInfo, HitInfo, RepoInfo, VariantInfo
from llama_router.hub.choice import Contents, RepoFile, Variant
from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder
from llama_router.runtime.bridge_ask import ask
from llama_router.runtime.downloads import Downloads, Remembered, UnknownDownloadError

_T = TypeVar("_T")
# Everything else is the hub's fault, or that of the way there; not the router's, nor one of its
# engines', as a 5xx would have it.
_STATUSES = {
    "bad_request": (400, "invalid_request"),
    "not_found": (404, "not_found"),
    "gated": (403, "hub_refused"),
    "unauthorized": (403, "hub_refused"),
    "busy": (409, "busy"),
    "offline": (409, "hub_offline"),
    "disk_failed": (500, "internal_error"),
    "internal_error": (500, "internal_error"),
}
_FAILED = (424, "hub_failed")


class Fitness(Protocol):
    """Whether a model would fit into the memory that models may take."""

    async def judge(self, contents: Contents, variant: Variant) -> tuple[str, str]:
        """Return yes, no or unknown, and why."""


class DownloadsBridge:
    """Implements DownloadsFacade over ``downloads``.

    Made on the data plane's loop, used on the control plane's. ``cache`` tells where models go to.
    ``downloads`` is None until the router has begun to serve, ``fitness`` where nobody can say.
    """

    def __init__(self, cache: Callable[[], Path]) -> None:
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self.downloads_here: Downloads | None = None
        self.fitness: Fitness | None = None

    async def downloads(self) -> Sequence[DownloadInfo]:
        """See DownloadsFacade."""
        return await self._ask(self._all())

    async def download(self, number: str) -> DownloadInfo:
        """See DownloadsFacade."""
        return await self._ask(self._one(number))

    async def begin_download(self, reference: str, file: str) -> DownloadInfo:
        """See DownloadsFacade."""
        return _info(await self._ask(self._there.begin(reference, file)))

    async def pause_download(self, number: str) -> DownloadInfo:
        """See DownloadsFacade."""
        return _info(await self._ask(self._there.pause(number)))

    async def resume_download(self, number: str) -> DownloadInfo:
        """See DownloadsFacade."""
        return _info(await self._ask(self._there.resume(number)))

    async def cancel_download(self, number: str) -> DownloadInfo:
        """See DownloadsFacade."""
        return _info(await self._ask(self._there.cancel(number)))

    async def search_hub(self, query: str, limit: int) -> Sequence[HitInfo]:
        """See DownloadsFacade."""
        return [
            HitInfo(
                repo=hit.repo,
                downloads=hit.downloads,
                likes=hit.likes,
                modified=hit.modified,
                gated=hit.gated,
                task=hit.task,
                architecture=hit.architecture,
                parameter_count=hit.parameter_count,
                context_length=hit.context_length,
            )
            for hit in await self._ask(self._there.search(query, limit))
        ]

    async def hub_files(self, repo: str) -> RepoInfo:
        """See DownloadsFacade."""
        found = await self._ask(self._there.files(repo))
        folder = RepoFolder(self._cache(), found.repo)
        return RepoInfo(
            repo=found.repo,
            commit=found.commit,
            variants=tuple([await self._variant(folder, found, one) for one in found.variants]),
            projectors=tuple(map(_file, found.projectors)),
            drafts=tuple(map(_file, found.drafts)),
        )

    async def _variant(self, folder: RepoFolder, found: Contents, one: Variant) -> VariantInfo:
        fits, because = "unknown", "nobody knows how much memory there is"
        if one.missing:
            because = "it is not complete"
        elif self.fitness is not None:
            fits, because = await self._ask(self.fitness.judge(found, one))
        return VariantInfo(
            id=one.id,
            tag=one.tag,
            size_bytes=one.size_bytes,
            files=tuple(map(_file, one.files)),
            projector=None if one.projector is None else _file(one.projector),
            is_default=one.is_default,
            is_cached=await asyncio.to_thread(_is_cached, folder, one),
            missing=one.missing,
            fits=fits,
            fits_because=because,
        )

    @property
    def _there(self) -> Downloads:
        if self.downloads_here is None:
            raise ControlError(503, "unavailable", "the router is still starting")
        return self.downloads_here

    async def _all(self) -> list[DownloadInfo]:
        return [_info(one) for one in self._there.all()]

    async def _one(self, number: str) -> DownloadInfo:
        return _info(self._there[number])

    async def _ask(self, question: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await ask(self._loop, question)
        except UnknownDownloadError as error:
            raise ControlError(404, "not_found", str(error)) from None
        except HubError as error:
            raise control_error(error) from None


def control_error(error: HubError) -> ControlError:
    """Return how the API says that the hub, or its cache, refuses."""
    status, code = _STATUSES.get(error.code, _FAILED)
    return ControlError(status, code, error.message)


def _is_cached(folder: RepoFolder, variant: Variant) -> bool:
    return all(folder.has(file.blob, file.size_bytes) for file in variant.files)


def _file(file: RepoFile) -> FileInfo:
    return FileInfo(file.path, file.size_bytes)


def _info(one: Remembered) -> DownloadInfo:
    progress = one.progress
    is_running = one.state == "running"
    return DownloadInfo(
        id=one.id,
        repo=one.repo,
        tag=one.tag,
        file=one.file,
        state=one.state,
        created_s=one.created_s,
        model=progress.model,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes or None,
        bytes_per_s=progress.speed_bytes_per_s if is_running else 0,
        file_count=progress.file_count,
        files_done_count=progress.files_done_count,
        note=progress.note,
        error_code=one.error_code,
        error=one.error,
    )
