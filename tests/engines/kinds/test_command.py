from pathlib import Path

import pytest

from llama_router.config import fields
from llama_router.engines.kinds.command import (
    MAX_ARGUMENT_CHARS,
    MAX_ARGUMENTS,
    PLACEHOLDERS,
    CommandError,
    ModelFacts,
    check_command,
    fill_command,
)

MODEL = ModelFacts(id="org/repo:Q4_K_M", path=Path("/m/a b.gguf"), mmproj=Path("/m/mmproj.gguf"))
TEXT_ONLY = ModelFacts(id="text", path=Path("/m/text.gguf"))


def fill(*command: str, model: ModelFacts = MODEL) -> tuple[str, ...]:
    return fill_command((*command, "--port=$port"), model, host="127.0.0.1", port=50001)[:-1]


def test_every_placeholder_is_filled_and_nothing_is_added() -> None:
    command = ["run", "$path", "$mmproj", "$model", "$host", "$port"]
    assert fill_command(command, MODEL, host="127.0.0.1", port=50001) == (
        "run",
        "/m/a b.gguf",
        "/m/mmproj.gguf",
        "org/repo:Q4_K_M",
        "127.0.0.1",
        "50001",
    )


def test_placeholders_stand_within_arguments() -> None:
    assert fill("run", "--url=http://$host:$port/v1") == ("run", "--url=http://127.0.0.1:50001/v1")


@pytest.mark.parametrize(
    ("written", "run"),
    [("$$", "$"), ("$$port", "$port"), ("a$", "a$"), ("ffn$=CPU", "ffn$=CPU"), ("$1", "$1")],
)
def test_a_dollar_sign_that_starts_no_name_is_one(written: str, run: str) -> None:
    assert fill("run", written) == ("run", run)


def test_a_filled_in_value_is_not_read_again() -> None:
    model = ModelFacts(id="$path", path=Path("/m/$host.gguf"))
    assert fill("run", "$model", "$path", model=model) == ("run", "$path", "/m/$host.gguf")


def test_without_a_projector_its_argument_goes_and_the_option_before_it() -> None:
    command = ("llama-server", "--jinja", "--mmproj", "$mmproj", "--host", "$host")
    assert fill(*command, model=TEXT_ONLY) == ("llama-server", "--jinja", "--host", "127.0.0.1")


def test_without_a_projector_an_option_that_carries_it_goes_alone() -> None:
    command = ("run", "--flag", "--mmproj=$mmproj")
    assert fill(*command, model=TEXT_ONLY) == ("run", "--flag")


def test_without_a_projector_a_bare_argument_takes_no_word_with_it() -> None:
    assert fill("run", "serve", "$mmproj", model=TEXT_ONLY) == ("run", "serve")
    assert fill("--odd-program", "$mmproj", model=TEXT_ONLY) == ("--odd-program",)


def test_option_of_a_draft_model_goes_with_it_where_there_is_none() -> None:
    command = ("run", "--model-draft", "$draft", "--mmproj", "$mmproj", "--spec=$draft", "--jinja")
    drafted = ModelFacts(id="text", path=Path("/m/text.gguf"), draft=Path("/m/mtp-text.gguf"))
    draft = "/m/mtp-text.gguf"
    assert fill(*command, model=TEXT_ONLY) == ("run", "--jinja")
    assert fill(*command, model=drafted) == (
        *("run", "--model-draft", draft, f"--spec={draft}", "--jinja"),
    )


def test_a_dollar_sign_before_mmproj_is_no_placeholder() -> None:
    assert fill("run", "--x", "$$mmproj", model=TEXT_ONLY) == ("run", "--x", "$mmproj")


def test_a_path_is_needed_only_where_the_command_says_it() -> None:
    elsewhere = ModelFacts(id="remote")
    assert fill("vllm", "serve", "$model", model=elsewhere) == ("vllm", "serve", "remote")
    with pytest.raises(CommandError, match=r"'remote' has no file"):
        fill("run", "$path", model=elsewhere)


def test_an_unknown_placeholder_is_named_together_with_the_known() -> None:
    with pytest.raises(CommandError, match=r"\$modle") as caught:
        check_command(["run", "--m=$modle", "$port"])
    for name in PLACEHOLDERS:
        assert f"${name}" in str(caught.value)


@pytest.mark.parametrize("command", [[], [""], ["  "]])
def test_an_empty_command_is_an_error_with_an_example(command: list[str]) -> None:
    with pytest.raises(CommandError, match=r"empty.*llama-server"):
        check_command(command)


@pytest.mark.parametrize("command", [["vllm", "serve", "$path"], ["run", "$$port"]])
def test_a_command_without_port_is_an_error_with_the_remedy(command: list[str]) -> None:
    with pytest.raises(CommandError, match=r'"--port", "\$port"'):
        check_command(command)


def test_sizes_are_limited() -> None:
    check_command(["run", "$port", *["x"] * (MAX_ARGUMENTS - 2)])
    with pytest.raises(CommandError, match="arguments"):
        check_command(["run", "$port", *["x"] * (MAX_ARGUMENTS - 1)])
    with pytest.raises(CommandError, match="characters"):
        check_command(["run", "$port", "x" * (MAX_ARGUMENT_CHARS + 1)])


def test_a_nul_character_is_refused() -> None:
    with pytest.raises(CommandError, match="NUL"):
        check_command(["run", "$port", "a\0b"])


def test_the_limits_are_those_of_the_config() -> None:
    assert (MAX_ARGUMENTS, MAX_ARGUMENT_CHARS) == (
        fields.ARGUMENTS_MAX_COUNT,
        fields.ARGUMENT_MAX_CHARS,
    )


def test_parameters_stand_where_the_command_says_and_else_at_its_end() -> None:
    given = ("--a", "1")
    for command, filled in (
        (("run", "$port", "$parameters", "x"), ("run", "1", *given, "x")),
        (("run", "$port", "x"), ("run", "1", "x", *given)),
    ):
        assert fill_command(command, MODEL, host="h", port=1, parameters=given) == filled
    with pytest.raises(CommandError, match="one of its own"):
        check_command(["run", "$port", "--x=$parameters"])


def test_a_parameter_is_not_read_as_a_placeholder() -> None:
    filled = fill_command(("run", "$port"), MODEL, host="h", port=1, parameters=("--a", "$path"))
    assert filled[-1] == "$path"
