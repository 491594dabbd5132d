from typing import Any

import pytest

from llama_router.config.name_clashes import names_claimed, peers_doubted
from llama_router.config.problems import Issue
from llama_router.config.validate import validate


@pytest.mark.parametrize(
    ("content", "issue"),
    [
        (
            {"models": [{"name": "a"}], "selectors": {"a": {}}},
            Issue(("selectors", "a"), "a is already the name of models[0]"),
        ),
        (
            {"models": [{"name": "a", "filters": {"set_params_by_id": {"b": {}}}}, {"name": "b"}]},
            Issue(("models", 1, "name"), "b is already the name of models[0]"),
        ),
        (
            {"selectors": {"a": {"targets": ["b"]}, "b": {"targets": ["c"]}}},
            Issue(
                ("selectors", "a", "targets", 0),
                "b is a selector; name the models that it leads to",
            ),
        ),
        (
            {"selectors": {"a": {"targets": ["a"]}}},
            Issue(
                ("selectors", "a", "targets", 0),
                "a is a selector; name the models that it leads to",
            ),
        ),
        (
            {"selectors": {"a": {"targets": ["b", "c", "b"]}}},
            Issue(("selectors", "a", "targets", 2), "is named twice"),
        ),
    ],
)
def test_a_name_leads_to_one_thing(content: dict[str, Any], issue: Issue) -> None:
    assert list(names_claimed(content)) == [issue]


@pytest.mark.parametrize(
    "content",
    [
        {
            "models": [
                {"name": "a", "aliases": ["b"], "filters": {"set_params_by_id": {"a": {}, "b": {}}}}
            ]
        },
        {"models": [{"name": 1, "aliases": "x", "filters": 5}, 7], "selectors": [], "peers": "x"},
        {"selectors": {"a": {"targets": "b"}, "c": None}},
    ],
)
def test_what_claims_nothing_twice_is_none_to_tell_of(content: dict[str, Any]) -> None:
    assert list(names_claimed(content)) == []


def test_models_of_peers_that_are_not_reached_are_doubtful() -> None:
    url = "http://10.0.0.1"
    content = {
        "models": [{"name": "a", "aliases": ["b"]}],
        "selectors": {"s": {"strategy": "warm", "targets": ["a"]}},
        "peers": {
            "one": {"url": url, "models": ["b", "c", "s"]},
            "two": {"url": url, "models": ["c"]},
        },
    }
    config, _ = validate(content)
    assert config is not None
    assert [str(issue.keys[1:]) + issue.message for issue in peers_doubted(config)] == [
        "('one', 'models', 0)is not reached: b leads to models[0]",
        "('one', 'models', 2)is not reached: s leads to selectors.s",
        "('two', 'models', 0)is not reached: c leads to peers.one",
    ]
