import re

import pytest
from starlette.testclient import TestClient

from tests.support.control_facade import code_of

PARTS = ("/admin/docs", "/admin/docs/docs.js", "/admin/docs/docs.css")


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    for path in PARTS:
        answer = client.get(path)
        assert answer.status_code == 200
        assert not re.search(r"(https?:)?//[a-z]", answer.text.replace("// ", ""))
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = client.get("/admin/docs").text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert client.get(path).status_code == 200, path


def test_nothing_runs_or_is_styled_within_the_page_itself(client: TestClient) -> None:
    page = client.get("/admin/docs").text
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page) == []
    assert not re.search(r"\son\w+=|style=|<style", page)


def test_what_comes_from_others_is_shown_as_text(client: TestClient) -> None:
    script = client.get("/admin/docs/docs.js").text
    assert "textContent" in script
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in script


def test_the_description_is_there_and_tells_every_route(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert "/admin/config" in described["paths"]
    assert "/admin/docs" not in described["paths"]


@pytest.mark.parametrize("path", ["/admin/docs/docs.html", "/admin/docs/../x"])
def test_there_are_no_other_files(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert code_of(answer) == (404, "not_found")
