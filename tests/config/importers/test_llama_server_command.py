from llama_router.config.importers.llama_server_command import with_options
from llama_router.config.schema import DEFAULT_COMMAND


def test_options_stand_behind_the_usual_command() -> None:
    assert with_options((), ()) == DEFAULT_COMMAND
    assert with_options(("--a",), ("--b",)) == (*DEFAULT_COMMAND, "--a", "--b")


def test_a_model_that_the_engine_finds_is_not_given_a_file() -> None:
    hub = ("--hf-repo", "org/name:Q8_0")
    command = with_options(("--a",), ("--b",), hub)
    assert command[-4:] == (*hub, "--a", "--b")
    assert not {"--model", "$path"} & set(command)
    assert set(DEFAULT_COMMAND) - set(command) == {"--model", "$path"}


def test_a_model_without_a_projector_is_not_given_one() -> None:
    for command in (
        with_options(("--no-mmproj-auto",), ()),
        with_options((), ("--no-mmproj-auto",)),
    ):
        assert "$mmproj" not in command
        assert command[-1] == "--no-mmproj-auto"
