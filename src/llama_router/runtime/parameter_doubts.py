"""Options in the config's ``parameters`` that the engine will refuse, told before it is started."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from llama_router.config.problems import ConfigError, Issue, Keys, Problem
from llama_router.config.resolve import resolve
from llama_router.config.schema import Config
from llama_router.engines.parameters import ParameterTable, ParameterValue
from llama_router.runtime.config_file import ReadError

_log = logging.getLogger(__name__)


class Tables(Protocol):
    """Whoever knows which options engines have."""

    async def of(self, command: Sequence[str]) -> ParameterTable | None:
        """Return the table for a command, None for an engine that cannot be asked."""


class Locator(Protocol):
    """Whoever knows the file of the config."""

    async def located(self, issues: Sequence[Issue]) -> tuple[Problem, ...]:
        """Say where in it these are. Raises ConfigError or ReadError."""


_Command = tuple[str, ...]
_Use = tuple[Keys, _Command, Mapping[str, ParameterValue]]


async def parameter_issues(config: Config, tables: Tables) -> list[Issue]:
    """Return what is wrong with ``parameters``, as far as engines say what they have.

    Of templates those that are used; of defaults, for the engine of models without an entry.
    """
    uses = await asyncio.to_thread(lambda: list(_uses(config)))
    known = {command: await tables.of(command) for command in {command for _, command, _ in uses}}
    return await asyncio.to_thread(lambda: list(dict.fromkeys(_issues(uses, known))))


async def warn_of_parameters(config: Config, tables: Tables, file: Locator) -> None:
    """Log the same, with its places."""
    issues = await parameter_issues(config, tables)
    try:
        problems = await file.located(issues)
    except (ConfigError, ReadError):
        # The file has changed meanwhile, and will be read again.
        return
    for problem in problems:
        _log.warning("%s", problem)


def _uses(config: Config) -> Iterator[_Use]:
    """Yield where there are parameters, the command that they are for, and them."""
    if config.defaults.parameters:
        command = resolve(config, None).spawn.command
        yield ("defaults", "parameters"), command, config.defaults.parameters
    seen: set[tuple[str, _Command]] = set()
    for index, entry in enumerate(config.models):
        if not (entry.parameters or entry.template):
            continue
        command = resolve(config, entry).spawn.command
        if entry.parameters:
            yield ("models", index, "parameters"), command, entry.parameters
        for name in entry.template:
            if (name, command) not in seen:
                seen.add((name, command))
                keys: Keys = ("templates", name, "parameters")
                yield keys, command, config.templates[name].parameters


def _issues(
    uses: Sequence[_Use], known: Mapping[_Command, ParameterTable | None]
) -> Iterator[Issue]:
    for keys, command, parameters in uses:
        table = known[command]
        if table is None:
            continue
        for name, value in parameters.items():
            for problem in table.check({name: value}):
                yield Issue((*keys, name), problem.removeprefix(f"{name}: "))
