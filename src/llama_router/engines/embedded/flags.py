"""Reading llama-server's flags into settings, by the table in table.py.

Nothing here loads llama.cpp: a wrong flag is reported before that costs any time. A setting is a
dotted path below ``xllamacpp.CommonParams`` and its value; values that are llama.cpp's enumerations
are named (``Constant``) until xllamacpp is there to resolve them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# llama.cpp keeps whole numbers in int32_t.
_INT_LIMIT = 2**31

# A chat template or grammar is some kilobytes; a model file given by mistake is not read whole.
_MAX_TEXT_FILE_BYTES = 4 * 1024 * 1024


class FlagError(ValueError):
    """A flag or value that the embedded engine cannot take. The text is for the user."""


class Constant(NamedTuple):
    """A member of one of xllamacpp's enumerations, by name."""

    enumeration: str
    member: str


class Adapter(NamedTuple):
    """A LoRA adapter and how strongly it is applied."""

    path: str
    scale: float


class Flag(NamedTuple):
    """One option of llama-server: its names and the settings that it makes.

    ``read`` turns the option's value into settings; None for an option without a value, whose
    settings are ``fixed``. ``default`` stands in for a value that may be left out. ``marks`` names
    the bit by which llama.cpp knows that the user, not the model file, chose a sampling setting.
    ``convert`` is what ``read`` makes of the value, before it is a setting.
    Settings in ``appends`` add to what earlier flags gave; all others replace it.
    """

    names: tuple[str, ...]
    read: Callable[[str], Mapping[str, object]] | None
    fixed: Mapping[str, object] = {}
    default: str | None = None
    marks: str = ""
    appends: bool = False
    convert: Callable[[str], object] | None = None


class Settings(NamedTuple):
    """All settings that a command line makes."""

    values: dict[str, object]
    marks: frozenset[str]


def parse_flags(arguments: Sequence[str], table: Iterable[Flag]) -> Settings:
    """Read a command line. Raises FlagError.

    As in llama.cpp (common/arg.cpp), underscores in long names count as dashes, the value is the
    next argument, and the last of several wins.
    """
    by_name = {name: flag for flag in table for name in flag.names}
    values: dict[str, object] = {}
    marks: set[str] = set()
    at = 0
    while at < len(arguments):
        name = arguments[at]
        at += 1
        canonical = name.replace("_", "-") if name.startswith("--") else name
        flag = by_name.get(canonical)
        if flag is None:
            raise FlagError(_unknown(name))
        made: Mapping[str, object] = flag.fixed
        if flag.read is not None:
            value = flag.default
            # Only an option whose value is optional looks whether the next argument is one.
            if at < len(arguments) and (value is None or not arguments[at].startswith("-")):
                value = arguments[at]
                at += 1
            if value is None:
                raise FlagError(f"option {name} needs a value")
            made = _read(name, value, flag.read)
        for path, setting in made.items():
            values[path] = _joined(values.get(path), setting) if flag.appends else setting
        if flag.marks:
            marks.add(flag.marks)
    return Settings(values, frozenset(marks))


def _read(
    name: str, value: str, read: Callable[[str], Mapping[str, object]]
) -> Mapping[str, object]:
    try:
        return read(value)
    except (ValueError, OverflowError) as error:
        raise FlagError(f"option {name} does not take {value!r}: {error}") from None
    except OSError as error:
        raise FlagError(f"option {name}: cannot read {value!r}: {error.strerror}") from None


def _joined(before: object, more: object) -> object:
    if isinstance(before, tuple) and isinstance(more, tuple):
        return before + more
    return more


def _unknown(name: str) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name!r}: every value must follow its option"
    if name.startswith("--") and "=" in name:
        return f"option {name!r}: write the value as the next argument, as llama-server wants it"
    return (
        f"option {name} is not one that the embedded engine can set; leave it out, or install "
        "llama-server (llama.cpp), which the router then uses instead"
    )


def value(
    path: str | tuple[str, ...],
    convert: Callable[[str], object],
    *names: str,
    default: str | None = None,
    marks: str = "",
    appends: bool = False,
) -> Flag:
    """Make an option whose converted value goes to ``path``, or to each of several."""
    paths = (path,) if isinstance(path, str) else path

    def read(text: str) -> dict[str, object]:
        converted = convert(text)
        return dict.fromkeys(paths, converted)

    return Flag(names, read, default=default, marks=marks, appends=appends, convert=convert)


def switch(settings: Mapping[str, object], *names: str) -> Flag:
    """Make an option without a value."""
    return Flag(names, None, fixed=settings)


def integer(text: str) -> int:
    """Read a whole number that llama.cpp can hold."""
    try:
        number = int(text)
    except ValueError:
        raise ValueError("it has to be a whole number") from None
    if not -_INT_LIMIT <= number < _INT_LIMIT:
        raise ValueError("the number is too large")
    return number


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("it has to be a number") from None


def text(raw: str) -> str:
    """Take the value as it is."""
    return raw


def text_file(path: str) -> str:
    """Read the file that the value names. Raises OSError and ValueError."""
    with Path(path).open("rb") as file:
        content = file.read(_MAX_TEXT_FILE_BYTES + 1)
    if len(content) > _MAX_TEXT_FILE_BYTES:
        raise ValueError(f"the file has more than {_MAX_TEXT_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None


def listed(convert: Callable[[str], object]) -> Callable[[str], tuple[object, ...]]:
    """Make a reader of comma-separated values."""

    def read(raw: str) -> tuple[object, ...]:
        return tuple(convert(part.strip()) for part in raw.split(",") if part.strip())

    return read


class Choice:
    """A reader that takes only the words in ``options``."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = options

    def __call__(self, word: str) -> object:
        """Return what the word stands for."""
        try:
            return self.options[word]
        except KeyError:
            raise ValueError(f"it has to be one of {', '.join(self.options)}") from None


choice = Choice
