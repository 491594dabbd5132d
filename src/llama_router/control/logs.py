"""What engines have written."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from llama_router.control.facade import Facade
from llama_router.control.following import AS_IT_IS, Following, Streams
from llama_router.control.shapes import KeyOwner, ModelName, plain_text

_LOG = plain_text("the lines that are kept, and with `follow` those that come")


def add_log_routes(app: FastAPI, facade: Facade, streams: Streams) -> None:
    """Add ``/logs`` and what is below it."""

    @app.get("/logs", response_class=PlainTextResponse, responses=_LOG)
    async def all_logs(key: KeyOwner = "", *, follow: bool = False) -> Response:
        whose = await facade.whose_log(None, key)
        return _log_response(facade, streams, whose, follow=follow)

    @app.get("/logs/{name:path}", response_class=PlainTextResponse, responses=_LOG)
    async def model_logs(name: ModelName, key: KeyOwner = "", *, follow: bool = False) -> Response:
        whose = await facade.whose_log(name, key)
        return _log_response(facade, streams, whose, follow=follow)


def _log_response(facade: Facade, streams: Streams, model: str | None, *, follow: bool) -> Response:
    if not follow:
        return PlainTextResponse(facade.log_text(model), headers=AS_IT_IS)
    return Following(
        streams,
        lambda wake: facade.follow_log(model, wake),
        render=lambda lines: "".join(f"{line}\n" for line in lines),
        media_type="text/plain; charset=utf-8",
    )
