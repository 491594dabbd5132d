"""What an engine kind is: the answer to two questions about a command that is filled in."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from llama_router.engines.launch import Readiness


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A command as this kind of engine has to be run."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    readiness: Readiness


class EngineKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of engine.

    ``claims`` tells whether a command starts such an engine; ``prepare`` says how it is run: its
    arguments, its whole environment, and how its readiness becomes known.
    """

    name: str
    claims: Callable[[Sequence[str]], bool]
    prepare: Callable[[tuple[str, ...], Mapping[str, str]], Prepared]
