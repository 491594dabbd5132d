import logging

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from llama_router.control.errors import declared
from llama_router.control.facade import ControlError
from tests.support.control_facade import Router, code_of


def test_an_error_says_which_field_and_when_to_try_again(
    client: TestClient, router: Router
) -> None:
    router.error = ControlError(429, "queue_full", "later", param="model", retry_after_s=0.2)
    answer = client.get("/v1/models")
    assert code_of(answer) == (429, "queue_full")
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["param"] == "model"
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_log_says_where_a_mistake_of_ours_was_and_not_what_was_in_it(
    client: TestClient, router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.error = RuntimeError("with a secret in it")
    with caplog.at_level(logging.ERROR):
        assert client.get("/v1/models").status_code == 500
    ours = [one for one in caplog.records if one.name.startswith("llama_router")]
    assert len(ours) == 1
    assert "RuntimeError" in ours[0].getMessage()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 60_000,
        b'{"model": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"model": "\\ud800"}',
        b'{"model": NaN}',
        b'{"model": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"model": "a"',
    ],
)
def test_json_that_is_made_to_hurt_is_a_400(client: TestClient, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/admin/load", content=content, headers=headers)
    assert answer.status_code == 400
    assert code_of(answer)[1] == "invalid_request"


@pytest.mark.parametrize("name", ["%ff%fe", "%00", "a%0d", "..%2f..%2fetc%2fpasswd", "%F0%9F"])
def test_names_are_never_paths_and_any_bytes_make_a_404(client: TestClient, name: str) -> None:
    for path in (f"/v1/models/{name}", f"/admin/models/{name}", f"/logs/{name}"):
        assert code_of(client.get(path)) == (404, "model_not_found")


def test_who_sends_no_json_is_told_what_to_send(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content-type": kind} if kind else {}
        answer = client.post("/admin/unload", content=b'{"model": "a"}', headers=headers)
        assert code_of(answer) == (400, "invalid_request")
        assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_field_that_is_missing_or_misspelt_is_named(client: TestClient) -> None:
    missing = client.post("/admin/load", json={"modl": "x"}).json()["error"]
    assert (missing["message"], missing["param"]) == ("model: is missing", "model")
    unknown = client.patch("/admin/models/m", json={"settings": {"ttl": 3}}).json()["error"]
    assert unknown["message"] == "settings.ttl: is not known here"


def test_a_path_says_all_the_methods_that_it_takes(client: TestClient) -> None:
    answer = client.post("/admin/models/alpha", json={})
    assert code_of(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert client.get("/admin/load").headers["allow"] == "POST"


def test_a_slash_too_many_is_no_route_and_sends_nobody_elsewhere(client: TestClient) -> None:
    # What is inside does not know by which name and port it is reached.
    for path in ("/admin/config/", "/models/", "/v1/health//", "/admin/keys/x/"):
        answer = client.get(path, follow_redirects=False)
        assert answer.status_code in (404, 405)
        assert "location" not in answer.headers
    answer = client.post("/admin/reload/", follow_redirects=False)
    assert code_of(answer) == (404, "not_found")


def test_every_route_declares_its_errors_in_the_one_form(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert len(paths) > 20
    for operations in paths.values():
        for operation in operations.values():
            assert "422" not in operation["responses"] or "config" in operation["operationId"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/json"]
                    assert "ErrorBody" in str(answer["content"])


def test_what_is_declared_has_the_standards_words() -> None:
    assert declared(412)[412]["description"] == "Precondition Failed"
