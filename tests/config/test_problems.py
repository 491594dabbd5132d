from llama_router.config.problems import ConfigError, Problem, format_keys


def test_a_problem_reads_as_compilers_write_them() -> None:
    assert str(Problem("c.yaml", 7, "router.port", "is odd")) == "c.yaml:7: router.port: is odd"
    assert str(Problem("c.yaml", 7, "", "is odd")) == "c.yaml:7: is odd"
    assert str(Problem("c.yaml", 0, "", "is missing")) == "c.yaml: is missing"


def test_an_error_lists_its_problems_by_line() -> None:
    error = ConfigError([Problem("c", 9, "b", "x"), Problem("c", 2, "a", "y")])
    assert str(error) == "c:2: a: y\nc:9: b: x"
    assert [problem.line for problem in error.problems] == [2, 9]


def test_keys_read_as_a_path() -> None:
    assert format_keys(()) == ""
    assert format_keys(("models", 2, "spawn", "command", 0)) == "models[2].spawn.command[0]"
