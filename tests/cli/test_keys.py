import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from llama_router.cli.main import app
from tests.support.canned_router import CannedRouter, canned_router

KEY = {
    "id": "k1",
    "name": "laptop",
    "scopes": ["inference"],
    "models": ["qwen*"],
    "requests_per_minute": 60,
    "max_in_flight": 4,
    "last_used_s": None,
    "source": "store",
}


@pytest.fixture
def router() -> Iterator[CannedRouter]:
    with canned_router() as server:
        yield server


def test_keys_are_listed_with_their_rights(router: CannedRouter) -> None:
    in_vain = KEY | {"name": "old", "scopes": [], "models": [], "requests_per_minute": 0}
    router.answers["GET", "/admin/keys"] = 200, {"keys": [KEY, in_vain]}
    result = CliRunner().invoke(app, ["keys", "list", "--url", router.url])
    _heads, first, second = result.output.splitlines()
    assert first.split() == (
        ["laptop", "k1", "inference", "qwen*", "60/min,", "4", "at", "a", "time", "-", "store"]
    )
    assert second.split() == (["old", "k1", "none", "all", "4", "at", "a", "time", "-", "store"])


def test_a_new_key_alone_is_on_stdout(router: CannedRouter) -> None:
    router.answers["POST", "/admin/keys"] = 201, KEY | {"key": "lr-secret"}
    words = ["keys", "add", "laptop", "--scope", "admin", "--model", "qwen*", "--batch"]
    result = CliRunner().invoke(app, [*words, "--url", router.url])
    assert (result.exit_code, result.stdout) == (0, "lr-secret\n")
    assert "not shown again" in result.stderr
    assert router.asked[0].content == {
        "name": "laptop",
        "scopes": ["admin"],
        "models": ["qwen*"],
        "requests_per_minute": 0,
        "max_in_flight": 0,
        "priority": 0,
        "batch": True,
    }


def test_a_key_is_revoked_by_name(router: CannedRouter) -> None:
    router.answers["DELETE", "/admin/keys/my%2Fkey"] = 200, {"success": True}
    result = CliRunner().invoke(app, ["keys", "revoke", "my/key", "--url", router.url])
    assert (result.exit_code, result.output) == (0, "my/key is revoked\n")


def test_the_list_for_programs_is_the_routers(router: CannedRouter) -> None:
    router.answers["GET", "/admin/keys"] = 200, {"keys": [KEY]}
    result = CliRunner().invoke(app, ["keys", "list", "--json", "--url", router.url])
    assert json.loads(result.output) == {"keys": [KEY]}
