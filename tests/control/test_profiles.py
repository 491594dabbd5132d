from starlette.testclient import TestClient

from tests.support.control_facade import code_of
from tests.support.control_fakes import Profiles


def test_a_profile_is_made_active_and_left_again(client: TestClient, profiles: Profiles) -> None:
    before = client.get("/admin/profiles").json()
    assert before == {
        "profiles": [{"name": "work", "description": "d", "pins": {"a": "b"}}],
        "active": None,
    }
    assert client.put("/admin/profiles/active", json={"name": "work"}).json() == {"active": "work"}
    assert profiles.active == "work"
    assert client.get("/admin/profiles/active").json() == {"active": "work"}
    assert client.put("/admin/profiles/active", json={"name": None}).json() == {"active": None}
    assert profiles.active == ""


def test_an_unknown_profile_changes_nothing(client: TestClient, profiles: Profiles) -> None:
    profiles.active = "work"
    answer = client.put("/admin/profiles/active", json={"name": "play"})
    assert code_of(answer) == (404, "not_found")
    assert code_of(client.put("/admin/profiles/active", json={})) == (400, "invalid_request")
    assert profiles.active == "work"
