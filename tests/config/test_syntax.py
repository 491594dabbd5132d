import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from llama_router.config.syntax import in_words


@pytest.mark.parametrize(
    ("text", "expected", "place"),
    [
        ("router:\n\tport: 1\n", "a tab cannot indent", (2, 1)),
        ("router:\n  port: 1\n   host: x\n", "the line is indented wrongly", (3, 8)),
        ("router\n  port: 1\n", "one is missing in the line above", (2, 7)),
        ("a:\n   b: 1\n  c: 2\n", "begin in the same column", (3, 3)),
        ('a:\n  b: "x\nc: d\n', "this quote is not closed", (2, 6)),
        ("a:\n  b: 'it's'\n", "a quote is closed too early", (2, 10)),
        ("a: [b]]\n", "a bracket is closed twice", (1, 7)),
        ("a: [b, c\nd: e\n", "opened in line 1 is not closed", (2, 2)),
        ("a: {x: ${y}}\n", "${…} between brackets, needs quotes", (1, 9)),
        ("a: @x\n", "text cannot begin with @ here: put it in quotes", (1, 4)),
        ("a: *x\n", "what begins with * is an alias, and this one is not defined", (1, 4)),
        ("a: !x!y\n", "text cannot begin with ! here: put it in quotes", (1, 4)),
        ('a: "C:\\models"\n', r"\m means nothing in double quotes", (1, 8)),
        ("a: 1\n---\nb: 2\n", "a second document begins here", (2, 1)),
    ],
)
def test_what_people_get_wrong_is_told_as_they_would(
    text: str, expected: str, place: tuple[int, int]
) -> None:
    message, *found = told(text)
    assert expected in message
    assert tuple(found) == place


@pytest.mark.parametrize(
    "text", ["a: *canary\n", "a: !canary!word\n", "a: %canary\n", "a: @canary\n"]
)
def test_what_may_be_a_password_without_quotes_is_not_quoted(text: str) -> None:
    assert "canary" not in told(text)[0]


def test_what_is_not_known_is_told_as_the_parser_does() -> None:
    error = MarkedYAMLError(context="while doing this", problem="found {that}")
    assert in_words(error) == ("while doing this, found {that}", 1, 0)


def told(text: str) -> tuple[str, int, int]:
    with pytest.raises(MarkedYAMLError) as caught:
        YAML(typ="rt", pure=True).load(text)
    return in_words(caught.value)
