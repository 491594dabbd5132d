"""Commands as the config spells them, and the kind that runs any of them.

A command is a list of arguments, never a shell line. It may carry placeholders, also in the middle
of an argument: ``$path``, ``$port``, ``$host``, ``$mmproj``, ``$draft``, ``$model``, and ``$$`` for
a dollar sign. A dollar sign that starts no name stands for itself, so that patterns such as
``--override-tensor 'ffn$=CPU'`` need no care. Nothing is added to a command but what the config
says: its parameters, where an argument is ``$parameters``, else at the end.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from llama_router.engines.address import takes_port
from llama_router.engines.kinds.base import EngineKind, Prepared
from llama_router.engines.launch import OwnerCheck, Readiness
from llama_router.engines.parameters import ParameterValue

PLACEHOLDERS = ("path", "port", "host", "mmproj", "draft", "model", "parameters")
# Known beyond those in what stops an engine, where there are no parameters.
STOP_PLACEHOLDERS = ("path", "port", "host", "mmproj", "draft", "model", "pid")

# Far above any real command (llama-server has some 300 options), far below what exec refuses.
MAX_ARGUMENTS = 1024
MAX_ARGUMENT_CHARS = 16 * 1024

_PARAMETERS = "$parameters"
# What not every model has; its option goes too.
_OPTIONAL = ("mmproj", "draft")
_PLACEHOLDER = re.compile(r"\$(\$|[A-Za-z_][A-Za-z0-9_]*)")


class CommandError(ValueError):
    """A command that cannot start an engine. The text says what is wrong and what to do."""


class CommandTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """How the config says that a model is started: ``default_spawn``, or a model's own ``spawn``.

    ``health_path`` is the path that answers 200 once the engine is ready, "none" for one that is
    ready as soon as its port accepts connections. ``env`` goes over the router's own environment.
    ``stop_command`` is run to stop the engine in place of a signal. ``address`` is where it
    listens, ``http://$host:$port`` when it is empty. ``parameters`` are options by their long
    names, see ``engines/parameters.py``. ``is_default``: nobody wrote a command, so that the engine
    may be told what kind of model it runs.
    """

    command: tuple[str, ...]
    health_path: str = "/health"
    owner_check: OwnerCheck = OwnerCheck.TREE
    env: Mapping[str, str] = {}
    stop_command: tuple[str, ...] = ()
    address: str = ""
    parameters: Mapping[str, ParameterValue] = {}
    is_default: bool = False

    @property
    def needs_port(self) -> bool:
        """Whether anything says the port that the router chooses."""
        said = placeholders_of((*self.command, *self.stop_command))
        return takes_port(self.address) or "port" in said


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a command can say of a model. ``path`` is None for a model that lives elsewhere.

    ``draft`` is the small model that drafts tokens for it. ``is_embedding``: it is made for
    embeddings; ``is_reranker``: for ranking.
    """

    id: str
    path: Path | None = None
    mmproj: Path | None = None
    draft: Path | None = None
    is_embedding: bool = False
    is_reranker: bool = False


def check_command(command: Sequence[str], *, needs_port: bool = True) -> None:
    """Check a command without starting anything.

    Raises CommandError for a command that is empty, oversized, uses an unknown placeholder, or
    would listen where the router does not look for it (unless it need not say ``$port``).
    """
    _check(command, PLACEHOLDERS)
    names = placeholders_of(command)
    if needs_port and "port" not in names:
        raise CommandError(
            f"command {command[0]!r} does not say $port, so the router could not reach the engine; "
            "add the option that sets the engine's port with $port as its value, "
            'for example "--port", "$port", or say where the engine listens as its address'
        )
    if any("parameters" in placeholders_of([each]) and each != _PARAMETERS for each in command):
        raise CommandError("$parameters stands for whole arguments; write it as one of its own")


def _check(command: Sequence[str], known_names: Sequence[str]) -> None:
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
    for name in placeholders_of(command):
        if name not in known_names:
            known = ", ".join(f"${known}" for known in known_names)
            raise CommandError(
                f"command uses the unknown placeholder ${name}; known are {known}, "
                f"and $$ for a dollar sign"
            )


def placeholders_of(command: Iterable[str]) -> list[str]:
    """Name the placeholders of a command in the order of their first use, known or not."""
    names = (match[1] for argument in command for match in _PLACEHOLDER.finditer(argument))
    return [name for name in dict.fromkeys(names) if name != "$"]


def fill_command(
    command: Sequence[str],
    model: ModelFacts,
    *,
    host: str,
    port: int,
    needs_port: bool = True,
    parameters: Sequence[str] = (),
) -> tuple[str, ...]:
    """Fill every placeholder of ``command``; ``parameters`` are arguments for ``$parameters``.

    An argument with ``$mmproj`` or ``$draft`` is left out for a model without one, together with
    the option it belongs to. Raises CommandError as ``check_command`` does, and for ``$path`` when
    the model has no file.
    """
    check_command(command, needs_port=needs_port)
    values = _values(command, model, host=host, port=port)
    absent = {name for name in _OPTIONAL if not values[name]}
    filled: list[str] = []
    for argument in [*command, *([] if _PARAMETERS in command else [_PARAMETERS])]:
        if argument == _PARAMETERS:
            filled += parameters
        elif not absent.isdisjoint(placeholders_of([argument])):
            is_value = not argument.startswith("-")
            if is_value and len(filled) > 1 and filled[-1].startswith("-"):
                filled.pop()
        else:
            filled.append(_PLACEHOLDER.sub(lambda match: values[match[1]], argument))
    return tuple(filled)


def fill_stop_command(
    command: Sequence[str], model: ModelFacts, *, host: str, port: int
) -> tuple[tuple[str, ...], ...]:
    """Fill every placeholder but ``$pid``, which goes between the parts of each argument.

    Raises CommandError as ``fill_command`` does.
    """
    if not command:
        return ()
    _check(command, STOP_PLACEHOLDERS)
    values = _values(command, model, host=host, port=port)
    filled: list[tuple[str, ...]] = []
    for argument in command:
        parts = [""]
        at = 0
        for match in _PLACEHOLDER.finditer(argument):
            parts[-1] += argument[at : match.start()]
            at = match.end()
            if match[1] == "pid":
                parts.append("")
            else:
                parts[-1] += values[match[1]]
        parts[-1] += argument[at:]
        filled.append(tuple(parts))
    return tuple(filled)


def _values(
    command: Sequence[str], model: ModelFacts, *, host: str, port: int
) -> Mapping[str, str]:
    if model.path is None and "path" in placeholders_of(command):
        raise CommandError(
            f"command says $path, but model {model.id!r} has no file; "
            "give the model a path, or write what to run without $path"
        )
    return {
        "$": "$",
        "path": str(model.path),
        "port": str(port),
        "host": host,
        "mmproj": str(model.mmproj or ""),
        "draft": str(model.draft or ""),
        "model": model.id,
    }


def _claims(argv: Sequence[str]) -> bool:
    return bool(argv)


def _prepare(argv: tuple[str, ...], env: Mapping[str, str]) -> Prepared:
    return Prepared(argv=argv, env=dict(env), readiness=Readiness.PROBED)


KIND = EngineKind(name="command", claims=_claims, prepare=_prepare)
