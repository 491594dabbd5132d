from starlette.testclient import TestClient

from tests.support.control_facade import ALPHA, Router, code_of


def test_a_models_log_is_its_own_and_followed_by_its_id(client: TestClient, router: Router) -> None:
    assert client.get(f"/logs/{ALPHA.id}").text.startswith(f"log of {ALPHA.id}")
    with client.stream("GET", f"/logs/{ALPHA.id}?follow=1") as answer:
        assert "".join(answer.iter_text()) == f"first of {ALPHA.id}\nsecond\n"
    assert router.follower is not None
    assert router.follower.is_closed


def test_what_is_no_switch_is_refused(client: TestClient) -> None:
    assert code_of(client.get("/logs?follow=perhaps")) == (400, "invalid_request")


def test_whose_key_it_is_decides_about_the_log(client: TestClient, router: Router) -> None:
    ann = {"x-router-key": "ann"}
    assert code_of(client.get("/logs", headers=ann)) == (403, "forbidden")
    assert code_of(client.get("/logs?follow=1", headers=ann)) == (403, "forbidden")
    assert router.follower is None
    assert client.get(f"/logs/{ALPHA.id}", headers=ann).status_code == 200
    # As the data plane writes a name that is no plain text.
    other = {"x-router-key": "50%25%20J%C3%B6rg"}
    assert client.get(f"/logs/{ALPHA.id}", headers=other).status_code == 200
    assert router.asked_keys == ["ann", "ann", "ann", "50% Jörg"]
