import pytest
from starlette.testclient import TestClient

from llama_router.control.objects import model_object
from llama_router.control.secret import SECRET_HEADER
from tests.support.control_facade import ALPHA, SECRET, Router, code_of


@pytest.mark.parametrize("secret", ["", "wrong", SECRET + "x"])
def test_nobody_comes_in_without_the_secret(client: TestClient, secret: str) -> None:
    for path in ("/v1/models", "/admin/status", "/nothing"):
        answer = client.get(path, headers={SECRET_HEADER.decode(): secret})
        assert code_of(answer) == (403, "forbidden")


def test_what_changes_anything_is_below_admin_whose_scope_is_asked_for(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    elsewhere = {path: list(asked) for path, asked in paths.items() if path[:7] != "/admin/"}
    assert len(elsewhere) > 5
    assert {path for path, methods in elsewhere.items() if methods != ["get"]} == set()


def test_models_are_listed_as_openai_and_llama_server_do(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert answer == {"object": "list", "data": [model_object(ALPHA)]}
    assert client.get("/models").json() == answer
    assert client.get("/v1/models/org/alpha:Q4").json() == model_object(ALPHA)
    assert client.get("/v1/models/org%2Falpha:Q4").json() == model_object(ALPHA)
    assert code_of(client.get("/v1/models/nobody")) == (404, "model_not_found")


def test_status_health_and_root_answer(client: TestClient) -> None:
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/admin/status").json()["requests_under_way"] == 3
    assert client.get("/").json()["name"] == "llama-router"
    assert client.get("/props").json()["role"] == "router"


def test_where_the_config_is_broken_is_told_to_who_may_use_the_admin_api(
    client: TestClient, router: Router
) -> None:
    router.problem = "/home/me/router.yaml:2:3: models[0].spawn: no"
    expected = {"": "stale", "inference": "stale", "inference,admin": f"stale: {router.problem}"}
    for scopes, config in expected.items():
        answer = client.get("/v1/health", headers={"x-router-scopes": scopes})
        assert answer.json() == {"status": "ok", "config": config}


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
