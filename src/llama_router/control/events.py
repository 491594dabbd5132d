"""One feed of everything that happens, as server-sent events."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Annotated, Protocol

import msgspec
from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse

from llama_router.control.errors import declared
from llama_router.control.facade import Facade
from llama_router.control.following import Following, Streams
from llama_router.control.models import model_shape
from llama_router.control.shapes import NAME_MAX_CHARS, drained, event_stream, json_of

KINDS = ("model", "download", "config", "request", "log")
_USUAL_KINDS = "model,download,config"
_KINDS_MAX_CHARS = 100
_ONE_KIND = f"({'|'.join(KINDS)})"
_DESCRIPTION = "server-sent events, each a JSON object with its `kind`"


class DownloadsSnapshot(Protocol):
    """Who knows what is being downloaded."""

    async def downloads(self) -> Sequence[object]:
        """Return all downloads, each as JSON is made of it."""


class _EventStream(StreamingResponse):
    media_type = "text/event-stream"


def add_event_routes(
    app: FastAPI, facade: Facade, streams: Streams, downloads: DownloadsSnapshot | None
) -> None:
    """Add ``/admin/events``; ``downloads`` are for the snapshot."""

    @app.get(
        "/admin/events",
        response_class=_EventStream,
        responses=event_stream(_DESCRIPTION) | declared(503),
    )
    async def events(
        model: Annotated[str | None, Query(min_length=1, max_length=NAME_MAX_CHARS)] = None,
        kinds: Annotated[
            str,
            Query(max_length=_KINDS_MAX_CHARS, pattern=f"^{_ONE_KIND}(,{_ONE_KIND})*$"),
        ] = _USUAL_KINDS,
        *,
        snapshot: Annotated[bool, Query(description="begin with how things stand")] = False,
    ) -> Response:
        wanted = frozenset(kinds.split(","))
        chosen = None if model is None else (await facade.model(model)).id
        answer = Following(
            streams,
            lambda wake: facade.follow_events(chosen, wake, wanted),
            render=_renderer(),
            media_type="text/event-stream",
            heartbeat=":\n\n",
        )
        if snapshot:
            # What happens meanwhile is told behind it, so nothing falls between the two.
            try:
                answer.first = (await _snapshot(facade, downloads, chosen),)
            except BaseException:
                answer.close()
                raise
        return answer


async def _snapshot(facade: Facade, downloads: DownloadsSnapshot | None, model: str | None) -> str:
    infos = await facade.models() if model is None else [await facade.model(model)]
    running = [] if downloads is None else await downloads.downloads()
    content = {
        "kind": "snapshot",
        "models": [msgspec.Raw(json_of(model_shape(info))) for info in drained(infos)],
        "downloads": running,
        "router": await facade.info(),
    }
    return json_of(content).decode()


def _renderer() -> Callable[[Sequence[str]], str]:
    numbers = count(1)
    return lambda lines: "".join(f"id: {next(numbers)}\ndata: {line}\n\n" for line in lines)
