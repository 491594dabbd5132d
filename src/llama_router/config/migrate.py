"""The config's early forms, rewritten in the open.

The first versions of the original llama-router took ``spawn`` and ``default_spawn`` as plain
arrays, and appended ``--model``, ``--port`` and ``--host`` to llama-server in secret. Now the
whole command stands in the file.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from llama_router.config.problems import Issue, Keys

_PLACEHOLDER = re.compile(r"\$(?:path|mmproj|draft|model|host|port)\b")
# What the early form appended, after the names under which the command may have it already.
_APPENDED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--model", "-m"), "$path"),
    (("--mmproj", "-mm"), "$mmproj"),
    (("--alias", "-a"), "$model"),
    (("--host",), "$host"),
    (("--port",), "$port"),
)
# Where the engine listens is the router's affair: what it appended came last and won.
_OURS = frozenset({"--host", "--port"})


def migrate(data: CommentedMap) -> list[Issue]:
    """Rewrite early forms in ``data``; say, for each, what was done."""
    return [*_arrays(data), *_commands(data)]


def _spawns(data: CommentedMap) -> Iterator[tuple[Keys, CommentedMap, str]]:
    yield ("default_spawn",), data, "default_spawn"
    models = data.get("models")
    for index, model in enumerate(models if isinstance(models, CommentedSeq) else ()):
        if isinstance(model, CommentedMap):
            yield ("models", index, "spawn"), model, "spawn"


def _arrays(data: CommentedMap) -> Iterator[Issue]:
    for keys, owner, key in _spawns(data):
        spawn = owner.get(key)
        if isinstance(spawn, CommentedSeq):
            owner[key] = _section_with_command(spawn)
            yield Issue(keys, "a plain array is an early form; it is now the key command below it")


def _section_with_command(command: CommentedSeq) -> CommentedMap:
    if command.fa.flow_style():
        # The comment behind a one-line array belongs to the key as well; once is enough.
        command = CommentedSeq(command)
        command.fa.set_flow_style()
    return CommentedMap({"command": command})


def _commands(data: CommentedMap) -> Iterator[Issue]:
    for keys, owner, key in _spawns(data):
        spawn = owner.get(key)
        command = spawn.get("command") if isinstance(spawn, CommentedMap) else None
        if isinstance(command, CommentedSeq) and _is_early(command):
            _complete(command)
            yield Issue(
                (*keys, "command"),
                "llama-server without placeholders is an early form; it now reads: "
                + " ".join(command),
            )


def _is_early(command: CommentedSeq) -> bool:
    if not command or not all(isinstance(word, str) for word in command):
        return False
    # Windows paths too: they have backslashes, and no other path has a program's name after one.
    name = PurePosixPath(PureWindowsPath(command[0]).name).name.removesuffix(".exe")
    return name == "llama-server" and not any(_PLACEHOLDER.search(word) for word in command)


def _complete(command: CommentedSeq) -> None:
    for names, placeholder in _APPENDED:
        index = _find_option(command, names)
        if index is not None and names[0] in _OURS:
            _set_value(command, index, placeholder)
    for names, placeholder in _APPENDED:
        if _find_option(command, names) is None:
            command.extend([names[0], placeholder])


def _find_option(command: list[Any], names: tuple[str, ...]) -> int | None:
    for index, word in enumerate(command):
        if word.partition("=")[0] in names:
            return index
    return None


def _set_value(command: CommentedSeq, index: int, value: str) -> None:
    name, equals, _ = command[index].partition("=")
    if equals:
        command[index] = f"{name}={value}"
    elif index + 1 < len(command):
        command[index + 1] = value
    else:
        command.append(value)
