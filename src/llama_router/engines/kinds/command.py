"""Commands as the config spells them, and the kind that runs any of them.

A command is a list of arguments, never a shell line. It may carry placeholders, also in the middle
of an argument: ``$path``, ``$port``, ``$host``, ``$mmproj``, ``$model``, and ``$$`` for a dollar
sign. A dollar sign that starts no name stands for itself, so that patterns such as
``--override-tensor 'ffn$=CPU'`` need no care. Nothing is added to a command but what it says.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from llama_router.engines.kinds.base import EngineKind, Prepared
from llama_router.engines.launch import OwnerCheck, Readiness

PLACEHOLDERS = ("path", "port", "host", "mmproj", "model")

# Far above any real command (llama-server has some 300 options), far below what exec refuses.
MAX_ARGUMENTS = 1024
MAX_ARGUMENT_CHARS = 16 * 1024

_PLACEHOLDER = re.compile(r"\$(\$|[A-Za-z_][A-Za-z0-9_]*)")


class CommandError(ValueError):
    """A command that cannot start an engine. The text says what is wrong and what to do."""


class CommandTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """How the config says that a model is started: ``default_spawn``, or a model's own ``spawn``.

    ``health_path`` is the path that answers 200 once the engine is ready.
    """

    command: tuple[str, ...]
    health_path: str = "/health"
    owner_check: OwnerCheck = OwnerCheck.TREE


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a command can say of a model. ``path`` is None for a model that lives elsewhere."""

    id: str
    path: Path | None = None
    mmproj: Path | None = None


def check_command(command: Sequence[str]) -> None:
    """Check a command without starting anything.

    Raises CommandError for a command that is empty, oversized, uses an unknown placeholder, or
    would listen where the router does not look for it.
    """
    if not command or not command[0].strip():
        raise CommandError(
            "command is empty; write the program and its arguments as a list, "
            'for example ["llama-server", "--model", "$path", "--host", "$host", "--port", "$port"]'
        )
    if len(command) > MAX_ARGUMENTS:
        raise CommandError(
            f"command has {len(command)} arguments; at most {MAX_ARGUMENTS} are allowed"
        )
    for argument in command:
        if "\0" in argument:
            raise CommandError(f"argument {argument!r} contains a NUL character; remove it")
        if len(argument) > MAX_ARGUMENT_CHARS:
            raise CommandError(
                f"argument {argument[:40]!r}… has {len(argument)} characters; "
                f"at most {MAX_ARGUMENT_CHARS} are allowed"
            )
    names = placeholders_of(command)
    for name in names:
        if name not in PLACEHOLDERS:
            known = ", ".join(f"${known}" for known in PLACEHOLDERS)
            raise CommandError(
                f"command uses the unknown placeholder ${name}; known are {known}, "
                f"and $$ for a dollar sign"
            )
    if "port" not in names:
        raise CommandError(
            f"command {command[0]!r} does not say $port, so the router could not reach the engine; "
            "add the option that sets the engine's port with $port as its value, "
            'for example "--port", "$port"'
        )


def placeholders_of(command: Iterable[str]) -> list[str]:
    """Name the placeholders of a command in the order of their first use, known or not."""
    names = (match[1] for argument in command for match in _PLACEHOLDER.finditer(argument))
    return [name for name in dict.fromkeys(names) if name != "$"]


def fill_command(
    command: Sequence[str], model: ModelFacts, *, host: str, port: int
) -> tuple[str, ...]:
    """Fill every placeholder of ``command``.

    An argument with ``$mmproj`` is left out for a model without one, together with the option it
    belongs to. Raises CommandError as ``check_command`` does, and for ``$path`` when the model has
    no file.
    """
    check_command(command)
    names = placeholders_of(command)
    if model.path is None and "path" in names:
        raise CommandError(
            f"command says $path, but model {model.id!r} has no file; "
            "give the model a path, or write what to run without $path"
        )
    values = {
        "$": "$",
        "path": str(model.path),
        "port": str(port),
        "host": host,
        "mmproj": str(model.mmproj),
        "model": model.id,
    }
    filled: list[str] = []
    for argument in command:
        if model.mmproj is None and "mmproj" in placeholders_of([argument]):
            is_value = not argument.startswith("-")
            if is_value and len(filled) > 1 and filled[-1].startswith("-"):
                filled.pop()
            continue
        filled.append(_PLACEHOLDER.sub(lambda match: values[match[1]], argument))
    return tuple(filled)


def _claims(argv: Sequence[str]) -> bool:
    return bool(argv)


def _prepare(argv: tuple[str, ...], env: Mapping[str, str]) -> Prepared:
    return Prepared(argv=argv, env=dict(env), readiness=Readiness.PROBED)


KIND = EngineKind(name="command", claims=_claims, prepare=_prepare)
