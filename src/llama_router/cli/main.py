"""The command ``llama-router``."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from llama_router import __version__
from llama_router.cli import (
    config_file,
    doctor,
    importing,
    keys,
    log_lines,
    models,
    plan,
    pull,
    record,
    serving,
    simulate,
    stress,
)

_HELP = """One endpoint in front of all of your local models.

Without a command, the router starts: it finds GGUF models in the caches of Hugging Face and
llama.cpp and in your folders, and starts the engine that a request names.
"""

# What imports make is not garbage, and they make 80,000 objects: to look for some after every 700,
# as is the default, would take a tenth of their time. The router has a measure of its own.
_GC_THRESHOLD = 100_000

app = typer.Typer(
    name="llama-router",
    help=_HELP,
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HostOption = Annotated[
    str | None,
    typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 127.0.0.1 by default."),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="PORT", min=1, max=65535, help="TCP port to listen on; 8082 by default."
    ),
]
FoldersOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--models-dir", metavar="DIR", help="Folder with models; may be given several times."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="YAML or JSON, if not the usual; made if it is not there."
    ),
]
LevelOption = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
]


ImportOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--import-dir",
        metavar="DIR",
        help="Write the models below this folder into the config; may be given several times.",
    ),
]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"llama-router {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
]


@app.callback()
def _default(  # these are options of a command line
    context: typer.Context,
    host: HostOption = None,
    port: PortOption = None,
    models_dir: FoldersOption = None,
    import_dir: ImportOption = None,
    config: ConfigOption = None,
    log_level: LevelOption = None,
    hf_repo: pull.HfOption = "",
    hf_file: pull.HffOption = "",
    _version: VersionOption = False,  # noqa: FBT002 - an option of a command line
) -> None:
    context.obj = serving.Overrides(
        *(config, host, port, tuple(models_dir or ()), log_level),
        import_dirs=tuple(import_dir or ()),
        hf_repo=hf_repo,
        hf_file=hf_file,
    )
    if context.invoked_subcommand is None:
        raise typer.Exit(serving.serve(context.obj))


@app.command()
def serve(  # as above
    context: typer.Context,
    host: HostOption = None,
    port: PortOption = None,
    models_dir: FoldersOption = None,
    import_dir: ImportOption = None,
    config: ConfigOption = None,
    log_level: LevelOption = None,
    hf_repo: pull.HfOption = "",
    hf_file: pull.HffOption = "",
) -> None:
    """Start the router (what happens without a command, too)."""
    given: serving.Overrides = context.obj
    own = serving.Overrides(
        *(config, host, port, tuple(models_dir or ()), log_level),
        import_dirs=tuple(import_dir or ()),
        hf_repo=hf_repo,
        hf_file=hf_file,
    )
    raise typer.Exit(serving.serve(own.over(given)))


@app.command(short_help="Try the router with three tiny models made on the spot.")
def demo(
    context: typer.Context,
    host: HostOption = None,
    port: PortOption = None,
    log_level: LevelOption = None,
) -> None:
    """Make three tiny models and start the router over them: nothing to download."""
    given: serving.Overrides = context.obj
    if given.config_path is not None or given.models_dirs:
        raise typer.BadParameter("the demo has its own models: leave out --config and --models-dir")
    own = serving.Overrides(host=host, port=port, log_level=log_level)
    raise typer.Exit(serving.demo(own.over(given)))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"llama-router {__version__}")


EngineArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- OPTIONS", help="llama-server's; without any, those of the config."),
]


@app.command()
def estimate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF file or a model's name.")],
    arguments: EngineArgument = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The config that the name is looked up in."),
    ] = None,
    models_dir: FoldersOption = None,
    as_json: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--json", help="Print sizes in bytes, as JSON.")
    ] = False,
    compare: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--compare", help="Print what llama.cpp's llama-fit-params says, too.")
    ] = False,
) -> None:
    """Print how much memory a model needs, and for what.

    Reads the file's header only: nothing is loaded. Example: llama-router estimate MODEL -- -c 8192
    """
    from llama_router.cli.estimate import estimate_memory

    own = serving.Overrides(config, models_dirs=tuple(models_dir or ()))
    given = own.over(context.obj)
    raise typer.Exit(
        estimate_memory(
            model,
            tuple(arguments or ()),
            as_json=as_json,
            compare=compare,
            config_path=given.config_path,
            models_dirs=given.models_dirs,
        )
    )


app.command(short_help="List the models.")(models.models)
app.command(short_help="List what is loaded, and what it holds.")(models.ps)
app.command(short_help="Load a model.")(models.load)
app.command(short_help="Unload a model.")(models.unload)
app.command(short_help="Download a model from Hugging Face.")(pull.pull)
app.command(short_help="Delete a model from disk.")(pull.rm)
app.command(short_help="Print what engines have written.")(log_lines.logs)
app.command(short_help="Say what a request for a model would cause now.")(plan.plan)
app.add_typer(config_file.app)
app.add_typer(importing.app)
app.add_typer(keys.app)
app.command(short_help="Check engine, models, ports; say what to do.")(doctor.doctor)
app.command()(record.record)
app.command()(simulate.simulate)
app.command()(stress.stress)


def main() -> None:
    """Run the command line."""
    gc.set_threshold(_GC_THRESHOLD)
    app()


if __name__ == "__main__":
    main()
