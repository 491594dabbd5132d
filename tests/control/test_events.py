import json
import re

import pytest
from starlette.testclient import TestClient

from llama_router.control.facade import ControlError
from tests.support.control_facade import ALPHA, Router, code_of


def test_the_usual_events_are_of_models_downloads_and_the_config(
    client: TestClient, router: Router
) -> None:
    client.get("/admin/events")
    assert router.asked_kinds == {"model", "download", "config"}
    client.get("/admin/events?kinds=request,log")
    assert router.asked_kinds == {"request", "log"}
    for wrong in ("", "all", "model,", "model;log", ","):
        answer = client.get("/admin/events", params={"kinds": wrong})
        assert code_of(answer) == (400, "invalid_request")


def test_events_are_numbered_and_a_snapshot_comes_before_them(
    client: TestClient, router: Router
) -> None:
    text = client.get("/admin/events?snapshot=1").text
    assert re.findall(r"^id: (\d+)$", text, re.MULTILINE) == ["1", "2", "3"]
    first, second, _ = (json.loads(line[6:]) for line in text.splitlines() if line[:5] == "data:")
    assert first["kind"] == "snapshot"
    assert [model["id"] for model in first["models"]] == [ALPHA.id]
    assert first["router"]["requests_under_way"] == 3
    assert second == {"model": "None"}
    assert router.follower is not None
    assert router.follower.is_closed


def test_a_snapshot_that_cannot_be_made_leaves_no_follower_behind(
    client: TestClient, router: Router
) -> None:
    router.error = ControlError(503, "shutting_down", "the router is ending")
    assert code_of(client.get("/admin/events?snapshot=1")) == (503, "shutting_down")
    assert router.follower is not None
    assert router.follower.is_closed


@pytest.mark.parametrize("query", ["model=nobody", "model=nobody&snapshot=1"])
def test_who_follows_an_unknown_model_is_told(client: TestClient, query: str) -> None:
    assert code_of(client.get(f"/admin/events?{query}")) == (404, "model_not_found")
