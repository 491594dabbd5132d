"""From a model's command to a launch: which kind of engine it is and how it is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_router.engines.environment import engine_environment
from llama_router.engines.kinds import command, embedded, llama_server
from llama_router.engines.kinds.base import EngineKind
from llama_router.engines.kinds.command import (
    CommandError,
    CommandTemplate,
    ModelFacts,
    fill_command,
)
from llama_router.engines.launch import LaunchSpec

# The first that claims a command runs it; the last claims all.
KINDS: tuple[EngineKind, ...] = (llama_server.KIND, embedded.KIND, command.KIND)


def build_launch(
    template: CommandTemplate,
    model: ModelFacts,
    *,
    generation: int,
    host: str,
    port: int,
    base_env: Mapping[str, str],
    found_llama_server: Path | None,
) -> LaunchSpec:
    """Make the launch of ``model`` at ``host:port``.

    Does no I/O, but for one look for the embedded engine in the life of the process.
    A command that begins with exactly ``llama-server`` runs ``found_llama_server`` (see
    ``find_llama_server``), or the embedded engine when that is None. Raises CommandError.
    """
    argv = fill_command(template.command, model, host=host, port=port)
    if argv[0] == llama_server.LLAMA_SERVER:
        argv = _found_engine(argv[1:], found_llama_server)
    kind = kind_of(argv)
    prepared = kind.prepare(argv, engine_environment(base_env, {}))
    return LaunchSpec(
        model=model.id,
        generation=generation,
        argv=prepared.argv,
        env=prepared.env,
        host=host,
        port=port,
        health_path=template.health_path,
        readiness=prepared.readiness,
        owner_check=template.owner_check,
    )


def kind_of(argv: Sequence[str]) -> EngineKind:
    """Give the kind of engine that a filled-in command starts."""
    return next(kind for kind in KINDS if kind.claims(argv))


def _found_engine(flags: Sequence[str], found: Path | None) -> tuple[str, ...]:
    if found is not None:
        return (str(found), *flags)
    if embedded.embedded_available():
        return embedded.embedded_command(flags)
    raise CommandError(
        "no llama-server was found beside the router or on PATH, and this installation has no "
        "embedded engine; install llama.cpp, or name the program by its path in the command"
    )
