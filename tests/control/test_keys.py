import pytest
from starlette.testclient import TestClient

from tests.support.control_facade import code_of
from tests.support.control_fakes import KeyHolder


def test_a_keys_secret_is_shown_when_it_is_made_and_never_again(
    client: TestClient, keys: KeyHolder
) -> None:
    made = client.post("/admin/keys", json={"name": "ann", "models": ["qwen*", "qwen*"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    content = made.json()
    assert content.pop("key") == keys.SECRET
    assert (content["scopes"], content["models"]) == (["inference"], ["qwen*"])
    listed = client.get("/admin/keys")
    assert listed.json() == {"keys": [content]}
    assert keys.SECRET not in listed.text


def test_a_key_is_revoked_by_name_or_id(client: TestClient, keys: KeyHolder) -> None:
    for name in ("a/b c", "id1"):
        client.post("/admin/keys", json={"name": name})
    revoked = client.delete("/admin/keys/a%2Fb%20c").json()
    assert revoked == {"success": True, "id": "id0", "name": "a/b c"}
    assert client.delete("/admin/keys/id1").json()["success"]
    assert keys.held == []
    assert code_of(client.delete("/admin/keys/id1")) == (404, "not_found")


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "ä"},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a", "models": [""]},
        {"name": "a", "requests_per_minute": -1},
        {"name": "a", "max_in_flight": True},
        {"name": "a", "key": "my-own"},
    ],
)
def test_an_order_that_makes_no_sense_makes_no_key(
    client: TestClient, keys: KeyHolder, order: dict[str, object]
) -> None:
    assert code_of(client.post("/admin/keys", json=order)) == (400, "invalid_request")
    assert keys.held == []
