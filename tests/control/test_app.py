import json
from collections.abc import Callable, Iterator, Sequence

import httpx2
import msgspec
import pytest
from starlette.testclient import TestClient

from llama_router.control.app import create_app, model_object, with_secret
from llama_router.control.facade import ControlError, Follower, ModelInfo, RouterInfo
from llama_router.control.secret import SECRET_HEADER

SECRET = "the-secret"

ALPHA = ModelInfo(
    id="org/alpha:Q4",
    names=("alpha.gguf",),
    source="hub_cache",
    state="unloaded",
    path="/models/alpha.gguf",
    mmproj="",
    group="",
    size_bytes=1000,
    created_s=1700000000,
)


class Lines:
    """A log's follower that has these lines and then fails, which ends the answer."""

    def __init__(self, lines: Sequence[str], wake: Callable[[], object]) -> None:
        self._lines = list(lines)
        self._wake = wake
        self.is_closed = False
        wake()

    def take(self) -> Sequence[str]:
        if not self._lines:
            raise RuntimeError("no more lines")
        self._wake()
        return [self._lines.pop(0)]

    def close(self) -> None:
        self.is_closed = True


class Router:
    """A facade over one model."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.error: Exception | None = None
        self.follower: Lines | None = None

    async def models(self) -> list[ModelInfo]:
        if self.error is not None:
            raise self.error
        return [ALPHA]

    async def model(self, name: str) -> ModelInfo:
        if name != ALPHA.id:
            raise ControlError(404, "model_not_found", f"no model {name}")
        return ALPHA

    async def load(self, name: str) -> ModelInfo:
        self.orders.append(f"load {name}")
        return msgspec.structs.replace(await self.model(name), state="loaded")

    async def unload(self, name: str) -> ModelInfo:
        self.orders.append(f"unload {name}")
        return await self.model(name)

    async def info(self) -> RouterInfo:
        return RouterInfo(
            version="1",
            model_count=1,
            connection_count=2,
            requests_under_way=3,
            uptime_s=4.0,
            max_loop_lag_s=0.001,
        )

    def log_text(self, model: str | None) -> str:
        return f"log of {model}\n<script>\n"

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        self.follower = Lines([f"first of {model}", "second"], wake)
        return self.follower


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def client(router: Router) -> Iterator[TestClient]:
    app = with_secret(create_app(router, version="1"), SECRET)
    headers = {SECRET_HEADER.decode(): SECRET}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"]


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x"])
def test_nobody_comes_in_without_the_secret(client: TestClient, secret: str) -> None:
    for path in ("/v1/models", "/admin/status", "/nothing"):
        answer = client.get(path, headers={SECRET_HEADER.decode(): secret})
        assert code_of(answer) == (403, "forbidden")


def test_models_are_listed_as_openai_and_llama_server_do(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert answer == {"object": "list", "data": [model_object(ALPHA)]}
    assert client.get("/models").json() == answer
    assert client.get("/v1/models/org/alpha:Q4").json() == model_object(ALPHA)
    assert client.get("/v1/models/org%2Falpha:Q4").json() == model_object(ALPHA)
    assert code_of(client.get("/v1/models/nobody")) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, {"value": "unloaded"}),
        ({"state": "loading", "fraction": 0.4312}, {"value": "loading", "progress": 0.431}),
        ({"state": "loaded"}, {"value": "loaded"}),
        ({"state": "unloading"}, {"value": "loaded", "state": "unloading"}),
        (
            {"state": "failed", "error": "crashed"},
            {"value": "unloaded", "state": "failed", "failed": True, "error": "crashed"},
        ),
        ({"state": "backing_off"}, {"value": "unloaded", "state": "backing_off", "failed": True}),
        ({"state": "stuck"}, {"value": "unloaded", "state": "stuck", "failed": True}),
        (
            {"state": "invalid", "error": "gone"},
            {"value": "unloaded", "state": "invalid", "error": "gone"},
        ),
    ],
)
def test_a_models_state_is_said_in_llama_servers_words_and_ours(
    changes: dict[str, object], status: dict[str, object]
) -> None:
    assert model_object(msgspec.structs.replace(ALPHA, **changes))["status"] == status


def test_a_projector_makes_a_model_see() -> None:
    seeing = model_object(msgspec.structs.replace(ALPHA, mmproj="/models/mmproj.gguf"))
    assert seeing["architecture"] == {
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
    }
    assert model_object(ALPHA)["created"] == 1700000000
    # Where a file lies is nobody's business.
    assert "/models" not in json.dumps(seeing)


def test_orders_are_carried_out_and_answered_with_the_state(
    client: TestClient, router: Router
) -> None:
    order = {"model": ALPHA.id}
    loaded = client.post("/admin/load", json=order).json()
    assert loaded == {"success": True, "model": ALPHA.id, "state": "loaded"}
    assert client.post("/admin/unload", json=order).json()["state"] == "unloaded"
    assert router.orders == [f"load {ALPHA.id}", f"unload {ALPHA.id}"]
    unknown = client.post("/admin/load", json={"model": "nobody"})
    assert code_of(unknown) == (404, "model_not_found")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b'{"model": 5}', b'{"model": ""}', b'{"model":"a","x":1}']
)
def test_an_order_that_makes_no_sense_is_a_400_and_carries_nothing_out(
    client: TestClient, router: Router, content: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/admin/load", content=content, headers=headers)
    assert code_of(answer) == (400, "invalid_request")
    assert router.orders == []


def test_nothing_is_ordered_by_get(client: TestClient, router: Router) -> None:
    answer = client.get("/admin/load")
    assert code_of(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert router.orders == []


def test_status_health_and_root_answer(client: TestClient) -> None:
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/admin/status").json()["requests_under_way"] == 3
    assert client.get("/").json()["name"] == "llama-router"
    assert client.get("/props").json()["role"] == "router"


def test_logs_are_plain_text_that_no_browser_takes_for_more(client: TestClient) -> None:
    for path, model in (("/logs", None), ("/logs/org/alpha:Q4", ALPHA.id)):
        answer = client.get(path)
        assert answer.text == f"log of {model}\n<script>\n"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert code_of(client.get("/logs/nobody")) == (404, "model_not_found")


def test_a_followed_log_comes_line_by_line_and_is_let_go_at_the_end(
    client: TestClient, router: Router
) -> None:
    with client.stream("GET", "/logs?follow=1") as answer:
        assert "".join(answer.iter_text()) == "first of None\nsecond\n"
    assert router.follower is not None
    assert router.follower.is_closed


def test_head_is_answered_like_get(client: TestClient) -> None:
    assert client.head("/v1/models").status_code == 200
    assert client.head("/nothing").status_code == 404


def test_a_mistake_of_ours_is_a_500_that_tells_nothing(client: TestClient, router: Router) -> None:
    router.error = RuntimeError("with a secret in it")
    answer = client.get("/v1/models")
    assert code_of(answer) == (500, "internal_error")
    assert "secret" not in answer.text


def test_no_page_loads_scripts_from_elsewhere(client: TestClient) -> None:
    for path in ("/docs", "/redoc"):
        assert code_of(client.get(path)) == (404, "not_found")
