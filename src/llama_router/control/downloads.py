"""Models from the hub: what there is, and what is on its way."""

from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from llama_router.control.errors import declared
from llama_router.control.facades import DownloadsFacade
from llama_router.control.shapes import Answer, Order, encoded

_REFERENCE_MAX_CHARS = 300
_PATH_MAX_CHARS = 1024
_QUERY_MAX_CHARS = 200
_ID_MAX_CHARS = 64
_HITS_MAX_COUNT = 100
_HITS_DEFAULT_COUNT = 20


class BeginDownload(Order):
    """What to download."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=_REFERENCE_MAX_CHARS,
            description="`user/repo` or with `:quant`",
        ),
    ]
    file: Annotated[
        str, Field(max_length=_PATH_MAX_CHARS, description="this GGUF file in place of a quant")
    ] = ""


class DownloadShape(Answer):
    """A download; `state` is one of running, paused, complete, failed."""

    id: str
    repo: str
    tag: str
    file: str
    state: str
    created_s: float
    model: str
    done_bytes: int
    total_bytes: int | None
    bytes_per_s: int
    file_count: int
    files_done_count: int
    note: str
    error_code: str
    error: str


class DownloadList(Answer):
    """All downloads, oldest first."""

    downloads: list[DownloadShape]


class HitShape(Answer):
    """A repository that was found."""

    repo: str
    downloads: int
    likes: int
    modified: str
    gated: bool
    task: str
    architecture: str
    parameter_count: int
    context_length: int


class HitList(Answer):
    """What a search has found, the most downloaded first."""

    models: list[HitShape]


class FileShape(Answer):
    """A file of a repository."""

    path: str
    size_bytes: int


class VariantShape(Answer):
    """A quantisation; `fits` is yes, no or unknown."""

    id: str
    tag: str
    size_bytes: int
    files: list[FileShape]
    projector: FileShape | None
    is_default: bool
    is_cached: bool
    missing: str
    fits: str
    fits_because: str


class RepoShape(Answer):
    """What a repository holds."""

    repo: str
    commit: str
    variants: list[VariantShape]
    projectors: list[FileShape]
    drafts: list[FileShape]


# What the hub, or the way to it, can have against a request.
_HUB_ERRORS = declared(409, 424)


def add_download_routes(app: FastAPI, facade: DownloadsFacade) -> None:
    """Add ``/admin/downloads`` and ``/admin/hub``."""

    @app.get("/admin/downloads", response_model=DownloadList)
    async def downloads() -> Response:
        return encoded({"downloads": await facade.downloads()})

    @app.post("/admin/downloads", response_model=DownloadShape, responses=_HUB_ERRORS)
    async def begin(order: BeginDownload) -> Response:
        return encoded(await facade.begin_download(order.model, order.file))

    @app.get("/admin/downloads/{number}", response_model=DownloadShape, responses=_HUB_ERRORS)
    async def download(number: str) -> Response:
        return encoded(await facade.download(number[:_ID_MAX_CHARS]))

    @app.post(
        "/admin/downloads/{number}/pause", response_model=DownloadShape, responses=_HUB_ERRORS
    )
    async def pause(number: str) -> Response:
        return encoded(await facade.pause_download(number[:_ID_MAX_CHARS]))

    @app.post(
        "/admin/downloads/{number}/resume", response_model=DownloadShape, responses=_HUB_ERRORS
    )
    async def resume(number: str) -> Response:
        return encoded(await facade.resume_download(number[:_ID_MAX_CHARS]))

    @app.post(
        "/admin/downloads/{number}/cancel", response_model=DownloadShape, responses=_HUB_ERRORS
    )
    async def cancel(number: str) -> Response:
        return encoded(await facade.cancel_download(number[:_ID_MAX_CHARS]))

    @app.get("/admin/hub/search", response_model=HitList, responses=_HUB_ERRORS)
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=_QUERY_MAX_CHARS)],
        limit: Annotated[int, Query(ge=1, le=_HITS_MAX_COUNT)] = _HITS_DEFAULT_COUNT,
    ) -> Response:
        return encoded({"models": await facade.search_hub(q, limit)})

    @app.get("/admin/hub/files", response_model=RepoShape, responses=_HUB_ERRORS)
    async def files(
        repo: Annotated[str, Query(min_length=1, max_length=_REFERENCE_MAX_CHARS)],
    ) -> Response:
        return encoded(await facade.hub_files(repo))
