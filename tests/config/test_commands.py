from collections.abc import Sequence
from typing import Any

import pytest

from llama_router.config.commands import command_issues
from llama_router.config.problems import Keys
from llama_router.engines.kinds import check_command

FIXED = "http://127.0.0.1:9000"


def places(content: dict[str, Any]) -> list[Keys]:
    return [issue.keys for issue in command_issues(content, check_command)]


@pytest.mark.parametrize(
    "content",
    [
        {"default_spawn": {"command": ["x", "$port"]}},
        {"default_spawn": {"command": ["x"], "address": FIXED}},
        {"default_spawn": {"address": FIXED}, "models": [{"spawn": {"command": ["x"]}}]},
        {"defaults": {"spawn": {"address": FIXED}}, "models": [{"spawn": {"command": ["x"]}}]},
        {
            "templates": {"t": {"spawn": {"address": FIXED}}},
            "models": [{"template": ["t"], "spawn": {"command": ["x"]}}],
        },
        {"models": [{"spawn": {"stop_command": ["docker", "stop", "$model", "$pid"]}}]},
        {"default_spawn": {"command": "x"}, "models": "y", "templates": [1], "defaults": None},
    ],
)
def test_a_command_that_can_run_is_none_to_tell_of(content: dict[str, Any]) -> None:
    assert places(content) == []


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"default_spawn": {"command": ["x"]}}, ("default_spawn", "command")),
        (
            {"default_spawn": {"command": ["x"], "address": "http://$host:$port"}},
            ("default_spawn", "command"),
        ),
        (
            {"defaults": {"spawn": {"command": ["x", "$nope", "$port"]}}},
            ("defaults", "spawn", "command"),
        ),
        (
            {"templates": {"t": {"spawn": {"command": ["x"]}}}},
            ("templates", "t", "spawn", "command"),
        ),
        ({"models": [{"spawn": {"command": ["x"]}}]}, ("models", 0, "spawn", "command")),
        (
            {"models": [{"spawn": {"stop_command": ["x", "$nope"]}}]},
            ("models", 0, "spawn", "stop_command"),
        ),
        (
            {"defaults": {"spawn": {"stop_command": ["x", "$parameters"]}}},
            ("defaults", "spawn", "stop_command"),
        ),
    ],
)
def test_one_that_never_could_is_told_with_its_place(content: dict[str, Any], keys: Keys) -> None:
    assert places(content) == [keys]


def test_a_check_sees_the_command_as_it_stands() -> None:
    seen: list[Sequence[str]] = []
    content = {"models": [{"spawn": {"command": ["x", "$port"]}}]}
    assert list(command_issues(content, seen.append)) == []
    assert seen == [["x", "$port"]]
