import pytest

from llama_router.config.importers.llama_swap_commands import (
    native_argument,
    native_text,
    split_command,
    strip_comments,
    with_spaced_variables,
)

# What the splitter of llama-swap makes of them, by the tests of its Go package.
POSIX = {
    "": [],
    "   foo   bar ": ["foo", "bar"],
    'foo"   "bar': ["foo   bar"],
    'foo "bar   baz': ["foo", "bar   baz"],
    'foo "" bar': ["foo", "", "bar"],
    "foo 'bar   baz'bag": ["foo", "bar   bazbag"],
    "foo ''": ["foo", ""],
    r"f\oo": ["foo"],
    r"\"foo": ['"foo'],
    r"foo\'": ["foo'"],
    r'foo "b\ar"': ["foo", r"b\ar"],
    r'foo "b\"ar"': ["foo", 'b"ar'],
    """foo "b'a'r" """: ["foo", "b'a'r"],
    r"foo 'b\\ar'": ["foo", r"b\\ar"],
}
WINDOWS = {
    "": [],
    "foo   bar": ["foo", "bar"],
    r"\foo": [r"\foo"],
    r"f\"oo": ['f"oo'],
    'foo "b""ar"': ["foo", 'b"ar'],
    r"foo\\\\ x": [r"foo\\\\", "x"],
    r'foo\\"': ["foo\\"],
    r"foo\\\"": [r"foo\""],
    r'"foo\\"   bar': ["foo\\", "bar"],
    r'"foo\\\"   bar"': [r"foo\"   bar"],
    r'"foo\\\   bar"': [r"foo\\\   bar"],
    "'a b'": ["'a", "b'"],
    r'"C:\TEST A\\"': ["C:\\TEST A\\"],
    r'"\"C:\TEST A\\\""': ['"C:\\TEST A\\"'],
    r'a\\\b d"e f"g h': [r"a\\\b", "de fg", "h"],
    '"a b c""': ['a b c"'],
    '""""Call Me Ishmael"" b c': ['"Call', "Me", "Ishmael", "b", "c"],
}


@pytest.mark.parametrize(("command", "arguments"), POSIX.items())
def test_commands_are_split_as_on_posix(command: str, arguments: list[str]) -> None:
    assert split_command(command, is_windows=False) == arguments


@pytest.mark.parametrize(("command", "arguments"), WINDOWS.items())
def test_commands_are_split_as_on_windows(command: str, arguments: list[str]) -> None:
    assert split_command(command, is_windows=True) == arguments


def test_lines_may_be_comments_and_end_with_a_backslash() -> None:
    command = "# which\nserver \\\n  --port 1 \\  \n   # why\n  --model 'a # b'\n\\\n--last"
    wanted = ["server", "--port", "1", "--model", "a # b", "--last"]
    assert split_command(command, is_windows=False) == wanted
    assert split_command("server \\\n --port 1", is_windows=True) == ["server", "--port", "1"]
    assert strip_comments("a\n  # ${unknown}\nb # c") == "a\nb # c"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    {
        "${PORT}:80": "$port:80",
        "${PID}": "$pid",
        "ffn$=CPU": "ffn$$=CPU",
        "$HOME/$x": "$$HOME/$$x",
        "$$": "$$$$",
        "${a b}": "$${a b}",
        "$${": "$$$${",
        "a/${env.DIR}/b": "a/${env.DIR}/b",
    }.items(),
)
def test_dollar_signs_of_a_command_stay_what_they_are(theirs: str, ours: str) -> None:
    assert native_argument(theirs) == ours


def test_other_text_keeps_its_dollar_signs_and_its_variables() -> None:
    assert native_text("$5 ${ ${env.X} $$") == "$5 $${ ${env.X} $$"


def test_only_variables_of_several_words_are_written_out() -> None:
    env = {"ONE": 'one"word', "TWO": r'two "words\ '}
    command, names = with_spaced_variables("${env.ONE} ${env.TWO}x", env)
    assert names == ["TWO"]
    assert split_command(command, is_windows=False) == ["${env.ONE}", "two", '"words\\', "x"]
