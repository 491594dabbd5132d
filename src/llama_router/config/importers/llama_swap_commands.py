"""llama-swap's commands: one text with comments, split into arguments as its splitter does it.

The rules are those of the Go package that llama-swap uses (billziss-gh/golib, shlex): close to a
shell's on POSIX, the C runtime's on Windows. Neither knows variables or patterns.
"""

import re
from collections.abc import Iterator, Mapping

from llama_router.config.importers.llama_swap_macros import ENV, PID_MARK, PORT_MARK

_POSIX_SPACES = " \t\n"
_WINDOWS_SPACES = " \t\r\n"
_ESCAPED_IN_DOUBLE_QUOTES = '$`"\\'
_NEEDS_ESCAPE = re.compile(r"""(["'\\])""")
_DOLLAR = re.compile(rf"{re.escape(PORT_MARK)}|{re.escape(PID_MARK)}|{ENV.pattern}|\$\{{?")
# A placeholder's name would go on with these.
PORT_RUNS_ON = re.compile(rf"{re.escape(PORT_MARK)}[A-Za-z0-9_]|{re.escape(PID_MARK)}[A-Za-z0-9_]")


def strip_comments(command: str) -> str:
    """Take out the lines that begin with ``#``, before macros are put in."""
    return "\n".join(line for line in command.split("\n") if not line.strip().startswith("#"))


def split_command(command: str, *, is_windows: bool) -> list[str]:
    """Split a command, once macros are in: comments go, lines may end with a backslash."""
    lines = []
    for line in command.split("\n"):
        bare = line.strip()
        if bare.startswith("#"):
            continue
        lines.append(bare[:-1] + " " if bare.endswith("\\") else line)
    text = "\n".join(lines)
    return list(_split_windows(text) if is_windows else _split_posix(text))


def _split_posix(text: str) -> Iterator[str]:  # noqa: C901 - one state machine
    token: list[str] | None = None
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        following = text[position + 1 : position + 2]
        position += 1
        if char == "\\" and quote != "'":
            if following in {"", "\n"}:
                position += 1
                continue
            if not quote or following in _ESCAPED_IN_DOUBLE_QUOTES:
                token = [*(token or []), following]
                position += 1
                continue
        if quote:
            if char == quote:
                quote = ""
            else:
                (token := token if token is not None else []).append(char)
        elif char in "\"'":
            quote = char
            token = token if token is not None else []
        elif char in _POSIX_SPACES:
            if token is not None:
                yield "".join(token)
            token = None
        else:
            (token := token if token is not None else []).append(char)
    if token is not None:
        yield "".join(token)


def _split_windows(text: str) -> Iterator[str]:
    token: list[str] | None = None
    is_quoted = False
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            run = len(text) - position - len(text[position:].lstrip("\\"))
            position += run
            token = token if token is not None else []
            if text[position : position + 1] == '"':
                # 2n backslashes are n of them, and an odd one makes the quote a character.
                token.append("\\" * (run // 2))
                if run % 2:
                    token.append('"')
                    position += 1
            else:
                token.append("\\" * run)
            continue
        position += 1
        if char == '"':
            token = token if token is not None else []
            if is_quoted and text[position : position + 1] == '"':
                token.append('"')
                position += 1
            else:
                is_quoted = not is_quoted
        elif char in _WINDOWS_SPACES and not is_quoted:
            if token is not None:
                yield "".join(token)
            token = None
        else:
            (token := token if token is not None else []).append(char)
    if token is not None:
        yield "".join(token)


def with_spaced_variables(command: str, env: Mapping[str, str]) -> tuple[str, list[str]]:
    """Put in the environment variables whose values are several words, and name them.

    The others stay ``${env.NAME}``, which our own config knows as well. All must be set.
    """
    names: list[str] = []

    def put_in(match: re.Match[str]) -> str:
        value = env[match[1]]
        if not re.search(r"\s", value):
            return match[0]
        names.append(match[1])
        return _NEEDS_ESCAPE.sub(r"\\\1", value)

    return ENV.sub(put_in, command), names


def native_argument(argument: str, *, port: int | None = None) -> str:
    """Write an argument as our commands have it: placeholders, and dollar signs as themselves.

    ``port`` takes the place of ``${PORT}`` when the port is fixed.
    """

    def rewritten(match: re.Match[str]) -> str:
        if match[0] == PORT_MARK:
            return "$port" if port is None else str(port)
        if match[0] == PID_MARK:
            return "$pid"
        return {"$": "$$", "${": "$${"}.get(match[0], match[0])

    return _DOLLAR.sub(rewritten, argument)


def native_text(text: str) -> str:
    """Write any other text as our config has it: only ``${`` needs care, but for variables."""
    return re.sub(rf"{ENV.pattern}|\$\{{", lambda m: m[0] if m[0] != "${" else "$${", text)
