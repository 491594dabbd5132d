"""What clients ask the router itself: its models, its health, what it is."""

import msgspec
from fastapi import FastAPI
from fastapi.responses import Response

from llama_router.control.facade import Facade
from llama_router.control.objects import ListedShape, ListShape, listed_object
from llama_router.control.shapes import (
    Answer,
    Json,
    KeyOwner,
    KeyScopes,
    ModelName,
    encoded,
)


class HealthShape(Answer):
    """The router answers. ``config``: that it does not run what its config file says, if so.

    Why is for those who may use the admin API: it names files and quotes settings.
    """

    status: str
    config: str | None = None


class RootShape(Answer):
    """What this is."""

    name: str
    version: str
    models: str


def add_openai_routes(app: FastAPI, facade: Facade, version: str) -> None:
    """Add the list of models, the health, and what llama.cpp's web UI asks first."""

    async def models(key: KeyOwner = "") -> Response:
        listed = await facade.listing(key)
        listed.reverse()
        # One by one, and each let go at once: thousands at a time would hold the interpreter.
        data: list[bytes] = []
        while listed:
            data.append(msgspec.json.encode(listed_object(listed.pop())))
        content = b'{"object":"list","data":[' + b",".join(data) + b"]}"
        return Response(content, media_type="application/json")

    app.get("/v1/models", response_model=ListShape)(models)
    app.get("/models", response_model=ListShape, operation_id="models_unversioned")(models)

    @app.get("/v1/models/{name:path}", response_model=ListedShape)
    async def model(name: ModelName, key: KeyOwner = "") -> Response:
        return encoded(listed_object(await facade.listed(name, key)))

    @app.get("/")
    async def root() -> RootShape:
        return RootShape(name="llama-router", version=version, models="/v1/models")

    @app.get("/v1/health", response_model_exclude_none=True)
    async def health(scopes: KeyScopes = "") -> HealthShape:
        problem = facade.config_problem()
        if not problem:
            return HealthShape(status="ok")
        is_for_admin = "admin" in scopes.split(",")
        return HealthShape(status="ok", config=f"stale: {problem}" if is_for_admin else "stale")

    @app.get("/props")
    async def props() -> Json:
        # llama.cpp, tools/server: what its web UI asks a router first.
        return {
            "role": "router",
            "max_instances": 0,
            "models_autoload": True,
            "model_alias": "llama-router",
            "model_path": "none",
            "default_generation_settings": {"params": None, "n_ctx": 0},
            "ui_settings": {},
            "build_info": f"llama-router {version}",
            "cors_proxy_enabled": False,
        }
