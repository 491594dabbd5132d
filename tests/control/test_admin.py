import json

import msgspec
import pytest
from starlette.testclient import TestClient

from llama_router.control.facade import HISTORY_MAX_COUNT, ControlError
from tests.support.control_facade import ALPHA, Router, code_of


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


def test_a_plan_says_who_would_go_and_orders_nothing(client: TestClient, router: Router) -> None:
    plan = client.post("/admin/plan", json={"model": ALPHA.id}).json()
    assert plan == {
        "model": ALPHA.id,
        "state": "unloaded",
        "fits": True,
        "reason": "in place of beta",
        "wait_s": 2.5,
        "load_cost_s": 2.0,
        "needs": {"cpu": 1000},
        "free": {"cpu": 10},
        "victims": [{"model": "beta", "reason": "not used for 5 s", "in_flight": 0}],
    }
    assert code_of(client.post("/admin/plan", json={"model": "no"})) == (404, "model_not_found")
    assert router.orders == []


def test_the_status_has_the_devices_and_the_models_that_are_up_to_something(
    client: TestClient, router: Router
) -> None:
    router.described = [
        ALPHA,
        msgspec.structs.replace(ALPHA, id="awaited", waiting=1),
        msgspec.structs.replace(ALPHA, id="running", state="loaded"),
        msgspec.structs.replace(ALPHA, id="broken", state="invalid"),
    ]
    status = client.get("/admin/status").json()
    assert status["devices"] == [
        {
            "name": "cpu",
            "total_bytes": None,
            "budget_bytes": 100,
            "reserved_bytes": 110,
            "free_bytes": -10,
        }
    ]
    assert [model["id"] for model in status["models"]] == ["awaited", "running"]
    assert status["requests_under_way"] == 3


@pytest.mark.parametrize("count", [0, 1, 500, 501, 1200])
def test_the_history_is_json_or_json_lines(client: TestClient, router: Router, count: int) -> None:
    router.history_count = count
    expected = [{"time_s": number} for number in range(count)]
    whole = client.get(f"/admin/history?limit={HISTORY_MAX_COUNT}")
    assert whole.headers["content-type"] == "application/json"
    assert whole.json() == {"requests": expected}
    lines = client.get(f"/admin/history?limit={HISTORY_MAX_COUNT}&format=jsonl")
    assert lines.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in lines.text.splitlines()] == expected


def test_the_history_is_bounded_and_asked_for_since_a_time(
    client: TestClient, router: Router
) -> None:
    client.get("/admin/history")
    assert router.asked_history == (0.0, 1000)
    client.get("/admin/history?since=1700000000.5&limit=7")
    assert router.asked_history == (1700000000.5, 7)
    router.asked_history = None
    wrong = ("since=yesterday", "limit=0", f"limit={HISTORY_MAX_COUNT + 1}", "limit=x", "format=x")
    for query in wrong:
        assert code_of(client.get(f"/admin/history?{query}")) == (400, "invalid_request")
    assert router.asked_history is None


def test_without_a_history_that_is_said(client: TestClient, router: Router) -> None:
    router.error = ControlError(404, "not_found", "no history is kept")
    assert code_of(client.get("/admin/history")) == (404, "not_found")


def test_events_are_an_event_stream_of_all_models_or_one(
    client: TestClient, router: Router
) -> None:
    for query, model in (("", "None"), (f"?model={ALPHA.id}", ALPHA.id)):
        with client.stream("GET", f"/admin/events{query}") as answer:
            text = "".join(answer.iter_text())
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert text == f'id: 1\ndata: {{"model":"{model}"}}\n\nid: 2\ndata: {{}}\n\n'
        assert router.follower is not None
        assert router.follower.is_closed
    assert code_of(client.get("/admin/events?model=nobody")) == (404, "model_not_found")


def test_what_is_wrong_in_a_query_is_named_as_it_is_written(client: TestClient) -> None:
    error = client.get("/admin/history?limit=0").json()["error"]
    assert error["param"] == "limit"
    assert error["message"].startswith("limit: ")
