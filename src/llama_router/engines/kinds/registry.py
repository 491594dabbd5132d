"""From a model's command to a launch: which kind of engine it is and how it is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_router.engines.address import AddressError, fill_address, takes_port
from llama_router.engines.environment import check_configured, engine_environment
from llama_router.engines.kinds import command, embedded, llama_server
from llama_router.engines.kinds.base import EngineKind, Prepared
from llama_router.engines.kinds.command import (
    CommandError,
    CommandTemplate,
    ModelFacts,
    fill_command,
    fill_stop_command,
)
from llama_router.engines.launch import LaunchSpec, Readiness
from llama_router.engines.parameters import ParameterError, ParameterTable, arguments_of

# In place of a health endpoint: there is none.
NO_HEALTH = "none"

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
    table: ParameterTable | None = None,
) -> LaunchSpec:
    """Make the launch of ``model``, at ``host:port`` unless its address is another.

    Does no I/O, but for one look for the embedded engine in the life of the process. ``table``:
    which parameters its engine has, if that is known; without it they are taken as they are.
    A command that begins with exactly ``llama-server`` runs ``found_llama_server`` (see
    ``find_llama_server``), or the embedded engine when that is None. Raises CommandError.
    """
    try:
        parameters = arguments_of(template.parameters, table)
        address = fill_address(template.address, host=host, port=port)
    except (AddressError, ParameterError) as error:
        raise CommandError(str(error)) from error
    argv = fill_command(
        template.command,
        model,
        host=host,
        port=port,
        needs_port=takes_port(template.address),
        parameters=(*purpose_arguments(template, model), *parameters),
    )
    if argv[0] == llama_server.LLAMA_SERVER:
        argv = _found_engine(argv[1:], found_llama_server)
    kind = kind_of(argv)
    prepared = kind.prepare(argv, engine_environment(base_env, {}))
    if template.stop_command and prepared.readiness is Readiness.PUSHED:
        prepared = _on_its_own(prepared)
    if problem := check_configured(template.env):
        raise CommandError(problem)
    return LaunchSpec(
        model=model.id,
        generation=generation,
        argv=prepared.argv,
        env={**prepared.env, **template.env},
        host=address.host,
        port=address.port,
        health_path=(
            "" if template.health_path == NO_HEALTH else address.path_prefix + template.health_path
        ),
        readiness=prepared.readiness,
        owner_check=template.owner_check,
        path_prefix=address.path_prefix,
        is_address_given=address.is_given,
        stop_argv=fill_stop_command(template.stop_command, model, host=host, port=port),
    )


def _on_its_own(prepared: Prepared) -> Prepared:
    """Run a llama-server as from a shell, for whoever stops it in another way than the router.

    One that is tied to a router by its stdin does not end for a signal until that is closed, so
    that "kill $pid" would last for the whole grace; and closing it would come before whatever else
    the command has to do.
    """
    env = {
        name: value for name, value in prepared.env.items() if name != llama_server.PUSH_VARIABLE
    }
    return Prepared(argv=prepared.argv, env=env, readiness=Readiness.PROBED)


def purpose_arguments(template: CommandTemplate, model: ModelFacts) -> tuple[str, ...]:
    """Return what a default command lacks for a model that is not made for text.

    llama-server answers /v1/embeddings and /v1/rerank only when it is told so at its start.
    """
    if not template.is_default:
        return ()
    if model.is_reranker:
        return ("--reranking",)
    return ("--embeddings",) if model.is_embedding else ()


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
