import pytest

from llama_router.config.problems import (
    ConfigError,
    Keys,
    Problem,
    format_keys,
    parse_keys,
    shortened,
)


def test_a_problem_reads_as_compilers_write_them() -> None:
    assert str(Problem("c.yaml", 7, "router.port", "is odd")) == "c.yaml:7: router.port: is odd"
    assert str(Problem("c.yaml", 7, "a", "is odd", 3)) == "c.yaml:7:3: a: is odd"
    assert str(Problem("c.yaml", 7, "", "is odd")) == "c.yaml:7: is odd"
    assert str(Problem("c.yaml", 0, "", "is missing")) == "c.yaml: is missing"


def test_an_error_lists_its_problems_by_line() -> None:
    error = ConfigError([Problem("c", 9, "b", "x"), Problem("c", 2, "a", "y")])
    assert str(error) == "c:2: a: y\nc:9: b: x"
    assert [problem.line for problem in error.problems] == [2, 9]


def test_many_faults_that_are_alike_are_a_few_and_a_count() -> None:
    problems = [Problem("c", line, "", "is odd") for line in range(1, 30)]
    assert shortened(problems[:5], "a list") == problems[:5]
    assert [str(one) for one in shortened(problems, "a list")] == [
        *(f"c:{line}: is odd" for line in range(1, 5)),
        "c:5: and 25 more lines like these: is it a list?",
    ]


def test_keys_read_as_a_path() -> None:
    assert format_keys(()) == ""
    assert format_keys(("models", 2, "spawn", "command", 0)) == "models[2].spawn.command[0]"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("router.port", ("router", "port")),
        ("models[2].spawn.command[0]", ("models", 2, "spawn", "command", 0)),
        ("models[name=user/repo:Q4_K_M].ttl_s", ("models", "name=user/repo:Q4_K_M", "ttl_s")),
        ("models[user/repo:Q4_K_M].ttl_s", ("models", "name=user/repo:Q4_K_M", "ttl_s")),
        ("models[name=7].ttl_s", ("models", "name=7", "ttl_s")),
        ('templates["qwen2.5"].ttl_s', ("templates", "qwen2.5", "ttl_s")),
        ("templates[qwen2.5].ttl_s", ("templates", "qwen2.5", "ttl_s")),
        ("defaults.parameters.ctx-size", ("defaults", "parameters", "ctx-size")),
    ],
)
def test_a_place_can_be_read(text: str, keys: Keys) -> None:
    assert parse_keys(text) == keys
    if "name=" not in str(keys) and "qwen2.5" not in keys:
        assert format_keys(keys) == text


@pytest.mark.parametrize(
    "text", ["", ".", "a.", "a..b", "a[", "a[]", "a[x", "a[-1]", "a]b", "[name=]"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no place"):
        parse_keys(text)
