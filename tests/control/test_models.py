from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from llama_router.control.facade import ControlError, ListedModel
from tests.support.control_facade import ALPHA, Router, code_of
from tests.support.control_fakes import Settings

PATH = f"/admin/models/{ALPHA.id}"


def named(number: int, **changes: Any) -> Any:  # noqa: ANN401 - a model's fields
    return msgspec.structs.replace(ALPHA, id=f"model-{number:05}", names=(), **changes)


def ids(client: TestClient, query: str) -> list[str]:
    answer = client.get(f"/admin/models?{query}")
    assert answer.status_code == 200
    return [model["id"] for model in answer.json()["models"]]


def test_models_come_in_pages_that_say_how_many_there_are(
    client: TestClient, router: Router
) -> None:
    router.described = [named(number) for number in range(250)]
    page = client.get("/admin/models").json()
    assert (page["total"], page["offset"], page["limit"], len(page["models"])) == (250, 0, 100, 100)
    last = client.get("/admin/models?offset=200&limit=100").json()
    assert [model["id"] for model in last["models"]] == [f"model-{n:05}" for n in range(200, 250)]
    assert ids(client, "offset=250") == []
    for wrong in ("limit=0", "limit=1001", "offset=-1", "sort=x", "order=x"):
        assert code_of(client.get(f"/admin/models?{wrong}")) == (400, "invalid_request")


def test_models_are_searched_by_every_word_of_any_name_and_sorted(
    client: TestClient, router: Router
) -> None:
    router.described = [
        named(1, size_bytes=5, title="Small Qwen"),
        named(2, size_bytes=3, state="loaded"),
        msgspec.structs.replace(ALPHA, id="qwen-big", names=("QWEN.gguf",), size_bytes=9),
    ]
    assert ids(client, "search=qwen") == ["model-00001", "qwen-big"]
    assert ids(client, "search=qwen%20SMALL") == ["model-00001"]
    assert ids(client, "state=loaded") == ["model-00002"]
    assert ids(client, "sort=size&order=desc") == ["qwen-big", "model-00001", "model-00002"]
    assert ids(client, "sort=state") == ["model-00002", "model-00001", "qwen-big"]


def test_selectors_and_models_of_peers_are_listed_beside_ours(
    client: TestClient, router: Router
) -> None:
    router.described = [named(1), named(2)]
    router.other_names = [
        ListedModel(id="any", kind="selector", title="Any Qwen"),
        ListedModel(id="far", kind="peer", description="of box"),
    ]
    page = client.get("/admin/models?limit=1&offset=1").json()
    assert [model["id"] for model in page["models"]] == ["model-00002"]
    assert page["others"] == [
        {"id": "any", "kind": "selector", "title": "Any Qwen", "description": ""},
        {"id": "far", "kind": "peer", "title": "", "description": "of box"},
    ]
    assert page["total"] == 2
    found = client.get("/admin/models?search=qwen").json()
    assert [one["id"] for one in found["others"]] == ["any"]
    # They have none.
    assert client.get("/admin/models?state=unloaded").json()["others"] == []


def test_a_model_is_shown_with_its_settings_and_where_they_come_from(client: TestClient) -> None:
    detail = client.get(PATH).json()
    assert detail["model"]["id"] == ALPHA.id
    assert detail["model"]["residency"]["waiting"] == 0
    assert detail["settings"]["settings"]["ttl_s"] == 60.0
    assert detail["settings"]["origins"] == {"ttl_s": "router (router.ttl_s)"}
    assert client.get(f"/admin/models/{ALPHA.id.replace('/', '%2F')}").json() == detail
    assert code_of(client.get("/admin/models/nobody")) == (404, "model_not_found")
    assert code_of(client.get("/admin/models/a/../../etc/passwd")) == (404, "not_found")


def test_thousands_of_models_are_sorted_as_few_are(client: TestClient, router: Router) -> None:
    sizes = [number * 7919 % 2503 for number in range(2503)]
    router.described = [
        msgspec.structs.replace(ALPHA, id=f"m{number:04}", size_bytes=size)
        for number, size in enumerate(sizes)
    ]
    for order, wanted in (("asc", sorted(sizes)), ("desc", sorted(sizes, reverse=True))):
        query = f"sort=size&order={order}&limit=1000&offset=700"
        page = client.get(f"/admin/models?{query}").json()
        assert [model["size_bytes"] for model in page["models"]] == wanted[700:1700]
        assert page["total"] == len(sizes)
    page = client.get("/admin/models?order=desc&limit=2").json()
    assert [model["id"] for model in page["models"]] == ["m2502", "m2501"]


def test_settings_are_set_taken_back_kept_and_forgotten(
    client: TestClient, settings: Settings
) -> None:
    order = {"settings": {"ttl_s": 5, "parameters": {"ctx-size": 8192, "mlock": None}}}
    changed = client.patch(PATH, json=order).json()
    assert changed["override"] == {"ttl_s": 5.0, "parameters": {"ctx-size": 8192, "mlock": None}}
    assert settings.kept == []
    order = {"settings": {"ttl_s": None, "pinned": True}}
    kept = client.patch(PATH, json={**order, "keep": True}).json()
    assert (kept["override"], settings.kept) == ({"pinned": True}, [ALPHA.id])
    dropped = client.delete(f"{PATH}/overrides").json()
    assert (dropped["override"], dropped["settings"]["pinned"]) == ({}, False)
    assert settings.values == {}


@pytest.mark.parametrize(
    ("order", "param"),
    [
        ({"settings": {"spawn": {"command": ["sh"]}}}, "settings.spawn"),
        ({"settings": {"macros": {"a": "b"}}}, "settings.macros"),
        ({"settings": {"path": "/etc/passwd"}}, "settings.path"),
        ({"settings": {"ttl_s": "5"}}, "settings.ttl_s"),
        ({"settings": {"priority": 10**9}}, "settings.priority"),
        ({"settings": {"parameters": {"--ctx-size": 1}}}, "settings.parameters.--ctx-size.[key]"),
        ({"settings": {}}, "settings"),
        ({"settings": {"pinned": True}, "keep": "yes"}, "keep"),
        ({"pinned": True}, "settings"),
        ({"settings": {"metadata": {"a": [[[[[[[[[[[[1]]]]]]]]]]]]}}}, "settings.metadata"),
    ],
)
def test_what_may_not_be_set_is_refused_by_its_name(
    client: TestClient, settings: Settings, order: dict[str, Any], param: str
) -> None:
    answer = client.patch(PATH, json=order)
    assert code_of(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == param
    assert settings.values == {}


def test_deleting_and_the_engines_options_answer_as_said(client: TestClient) -> None:
    gone = client.delete(PATH).json()
    assert gone == {
        "success": True,
        "model": ALPHA.id,
        "files": [f"{ALPHA.id}.gguf"],
        "freed_bytes": 5,
    }
    assert client.get("/admin/parameters").json()["parameters"][0]["name"] == "ctx-size"
    assert client.get("/admin/parameters?model=mute").json() == {"parameters": None}
    assert code_of(client.delete("/admin/models/nobody")) == (404, "model_not_found")


@pytest.mark.parametrize("changes", [{"state": "loaded"}, {"state": "loading"}, {"waiting": 1}])
def test_what_is_in_use_is_deleted_by_force_only(
    client: TestClient, router: Router, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    used = msgspec.structs.replace(ALPHA, **changes)

    async def model(_name: str) -> Any:  # noqa: ANN401 - a model
        return used

    monkeypatch.setattr(router, "model", model)
    assert code_of(client.delete(PATH)) == (409, "model_loaded")
    assert client.delete(f"{PATH}?force=true").json()["success"]


def test_the_startup_model_is_refused_by_its_own_code(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[bool] = []

    async def delete(_name: str, *, force: bool) -> Any:  # noqa: ANN401 - never returned
        forced.append(force)
        raise ControlError(409, "startup_model", "it is loaded at each start")

    monkeypatch.setattr(settings, "delete", delete)
    for query in ("", "?force=true"):
        assert code_of(client.delete(f"{PATH}{query}")) == (409, "startup_model")
    assert forced == [False, True]
