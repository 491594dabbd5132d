import logging
from collections.abc import Sequence
from typing import Any

import pytest

from llama_router.config.problems import ConfigError, Issue, Problem, format_keys
from llama_router.config.schema import Config
from llama_router.engines.parameters import Parameter, ParameterKind, ParameterTable, table_of
from llama_router.runtime.parameter_doubts import parameter_issues, warn_of_parameters

pytestmark = pytest.mark.asyncio

TABLE = table_of(
    [
        Parameter(name="ctx-size", kind=ParameterKind.INTEGER, aliases=("c",), minimum=0),
        Parameter(name="jinja", kind=ParameterKind.FLAG),
        Parameter(name="api-key", kind=ParameterKind.TEXT),
    ]
)
CONFIG: dict[str, Any] = {
    "defaults": {"parameters": {"jinjaa": True}},
    "templates": {
        "big": {"parameters": {"ctx_sise": 8192}},
        "unused": {"parameters": {"nothing": 1}},
    },
    "models": [
        {"name": "a", "template": "big", "parameters": {"jinja": "yes"}},
        {"name": "b", "template": "big", "parameters": {"api-key": "x"}},
        {"name": "c", "parameters": {"gpus": 2}, "spawn": {"command": ["mute", "$port"]}},
        {"name": "d"},
    ],
}


class Tables:
    """What engines say of their options, and which were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def of(self, command: Sequence[str]) -> ParameterTable | None:
        self.asked.append(command[0])
        return None if command[0] == "mute" else TABLE


class File:
    """A config file of one line."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def located(self, issues: Sequence[Issue]) -> tuple[Problem, ...]:
        if self.error is not None:
            raise self.error
        return tuple(Problem("c.yaml", 1, format_keys(one.keys), one.message) for one in issues)


async def test_options_that_the_engine_refuses_are_named_each_once_with_what_may_be_meant() -> None:
    tables = Tables()
    issues = await parameter_issues(Config.model_validate(CONFIG), tables)
    shown = {format_keys(one.keys): one.message for one in issues}
    assert len(issues) == len(shown)
    assert shown == {
        "defaults.parameters.jinjaa": "jinjaa is not an option of the engine (did you mean jinja?)",
        "models[0].parameters.jinja": "takes true or false",
        "models[1].parameters.api-key": (
            "api-key is the router's own, or names a file, key or address: it cannot be set"
        ),
        "templates.big.parameters.ctx_sise": (
            "ctx_sise is not an option of the engine (did you mean ctx-size?)"
        ),
    }
    assert sorted(tables.asked) == ["llama-server", "mute"]


async def test_where_nothing_is_set_no_engine_is_asked() -> None:
    tables = Tables()
    assert await parameter_issues(Config.model_validate({"models": [{"name": "a"}]}), tables) == []
    assert tables.asked == []


async def test_they_are_logged_with_their_places(caplog: pytest.LogCaptureFixture) -> None:
    config = Config.model_validate({"defaults": {"parameters": {"ctx-sise": 1}}})
    with caplog.at_level(logging.WARNING):
        await warn_of_parameters(config, Tables(), File(ConfigError([])))
        assert caplog.messages == []
        await warn_of_parameters(config, Tables(), File())
    (message,) = caplog.messages
    assert message.startswith("c.yaml:1: defaults.parameters.ctx-sise: ctx-sise is not an option")
