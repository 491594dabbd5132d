import pytest
from starlette.testclient import TestClient

from llama_router.control.facade import ControlError
from llama_router.control.facades import ConfigEdit
from tests.support.control_facade import ALPHA, code_of
from tests.support.control_fakes import Configuration

EDITS = {"edits": [{"op": "set", "path": ["models", 0, "ttl_s"], "value": 5}]}


def test_the_file_comes_with_its_etag(client: TestClient) -> None:
    answer = client.get("/admin/config")
    assert answer.headers["etag"] == '"v1"'
    assert answer.json() == {"path": "/c/router.json", "text": '{"version": "1.0"}', "etag": "v1"}


def test_what_holds_for_a_model_is_told_with_its_origin(client: TestClient) -> None:
    answer = client.get("/admin/config", params={"resolved": ALPHA.id}).json()
    assert answer["settings"] == {"ttl_s": 1.0}
    assert answer["origins"] == {"ttl_s": "built in"}
    unknown = client.get("/admin/config", params={"resolved": "nobody"})
    assert code_of(unknown) == (404, "model_not_found")


def test_edits_are_made_for_the_version_that_they_name_and_no_other(
    client: TestClient, configuration: Configuration
) -> None:
    assert code_of(client.patch("/admin/config", json=EDITS)) == (428, "precondition_required")
    stale = client.patch("/admin/config", json=EDITS, headers={"if-match": '"v0"'})
    assert code_of(stale) == (412, "config_changed")
    assert configuration.edits == []
    done = client.patch("/admin/config", json=EDITS, headers={"if-match": '"v1"'})
    assert done.headers["etag"] == '"v1+"'
    assert done.json()["changed"] == ["alpha"]
    assert configuration.edits == [ConfigEdit("set", ("models", 0, "ttl_s"), 5)]
    weak = client.patch("/admin/config", json=EDITS, headers={"if-match": 'W/"v1+"'})
    assert weak.json()["etag"] == "v1++"


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("*", 200),
        (' "v0" , "v1" ', 200),
        ('"v0",W/"v1"', 200),
        ("v1", 200),
        ('"v0", "v2"', 412),
        ('"*"', 412),
        ("", 428),
        ('"', 400),
        ('"v1", *', 400),
        ('"v1" "v0"', 400),
    ],
)
def test_if_match_names_one_version_or_several_or_any(
    client: TestClient, configuration: Configuration, header: str, answer: int
) -> None:
    said = client.patch("/admin/config", json=EDITS, headers={"if-match": header})
    assert said.status_code == answer
    assert len(configuration.edits) == (answer == 200)


@pytest.mark.parametrize(
    "edit",
    [
        {"op": "move", "path": ["a"]},
        {"op": "set", "path": []},
        {"op": "set", "path": [-1]},
        {"op": "set", "path": [True]},
        {"op": "set", "path": "router"},
        {"op": "set", "path": ["a"], "values": 1},
        {"path": ["a"]},
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(
    client: TestClient, configuration: Configuration, edit: object
) -> None:
    answer = client.patch("/admin/config", json={"edits": [edit]}, headers={"if-match": '"v1"'})
    assert code_of(answer) == (400, "invalid_request")
    assert configuration.edits == []


def test_a_text_is_checked_and_its_faults_have_a_place(client: TestClient) -> None:
    good = client.post("/admin/config/validate", json={"text": "good"}).json()
    assert good == {"valid": True, "problems": []}
    bad = client.post("/admin/config/validate", json={"text": "bad"}).json()
    assert not bad["valid"]
    assert bad["problems"][0] == {
        "message": "must be good",
        "key": "version",
        "file": "f",
        "line": 1,
        "column": 2,
    }


def test_orders_about_the_file_and_the_disk_say_what_they_did(
    client: TestClient, configuration: Configuration
) -> None:
    reloaded = client.post("/admin/reload").json()
    assert reloaded == {
        "status": "reloaded",
        "changed": [],
        "added": ["beta"],
        "removed": [],
        "restart_needed": ["router.port"],
        "warnings": [],
    }
    rescanned = client.post("/admin/rescan").json()
    assert rescanned == {
        "status": "rescanned",
        "new_models": 2,
        "removed": 1,
        "changed": 0,
        "warnings": [],
    }
    imported = client.post("/admin/import", json={"path": "/m"}).json()
    assert imported["added"] == ["manual of /m"]
    assert client.get("/admin/config/schema").json() == {"type": "object"}
    configuration.error = ControlError(400, "invalid_config", "f:3:7: version: is wrong")
    refused = client.post("/admin/reload")
    assert code_of(refused) == (400, "invalid_config")
    assert "f:3:7" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"text": 1}',
        b'{"text": "good", "more": 1}',
        b'{"text": "\\ud800"}',
    ],
)
def test_what_is_no_text_to_be_checked_is_refused(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/admin/config/validate", content=body, headers=headers)
    assert code_of(answer) == (400, "invalid_request")


def test_a_text_to_be_checked_may_be_as_long_as_the_longest_file(client: TestClient) -> None:
    for size, status in ((4 * 1024**2, 200), (4 * 1024**2 + 1, 400)):
        answer = client.post("/admin/config/validate", json={"text": "x" * size})
        assert answer.status_code == status


@pytest.mark.parametrize("path", ["reload", "rescan", "import", "config/validate"])
def test_nothing_is_done_by_get(client: TestClient, path: str) -> None:
    answer = client.get(f"/admin/{path}")
    assert code_of(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
