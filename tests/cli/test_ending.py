import pytest
import typer

from llama_router.cli.ending import EXIT_FAILED, refuse, tell


def test_what_is_told_is_one_line_on_stderr_whatever_is_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("a\nb\x1b[31m")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "llama-router: a\\nb\\x1b[31m\n")


def test_a_refusal_ends_the_command_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        refuse("first\nsecond\t", EXIT_FAILED)
    assert ended.value.exit_code == EXIT_FAILED
    assert capsys.readouterr().err == "llama-router: first\nllama-router: second\\t\n"
