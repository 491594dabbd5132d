"""``llama-router import``: configs and model folders of other programs, as a config of ours."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_router.cli.asking import JsonOption, show_json
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse
from llama_router.cli.logs import escaped
from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from llama_router.config.importers.foreign import Foreign

app = typer.Typer(
    name="import",
    short_help="Bring along the configs and models of other programs.",
    help="Bring along what other programs have: their configs, their folders of models.\n\n"
    "Prints the config that comes of it, and what became of every key; --write puts it into the"
    " config file, in which everything that it says already stays.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False)]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The config file, if not the usual one."),
]
WriteOption = Annotated[bool, typer.Option("--write", help="Put it into the config file.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="How the model is to be called.")
]
_MODELFILES_MAX_COUNT = 1000


@app.command("llama-swap")
def import_llama_swap(
    context: typer.Context,
    file: FileArgument,
    *,
    write: WriteOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Import llama-swap's config.yaml.

    It also runs as it is: llama-router --config FILE.
    """
    from llama_router.config.importers import llama_swap

    _import([_read(file, llama_swap.FORM)], context, config, write=write, as_json=as_json)


@app.command("llama-server")
def import_llama_server(
    context: typer.Context,
    file: FileArgument,
    *,
    write: WriteOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Import llama-server's preset .ini.

    It also runs as it is: llama-router --config FILE.
    """
    from llama_router.config.importers import llama_server_ini

    _import([_read(file, llama_server_ini.FORM)], context, config, write=write, as_json=as_json)


@app.command("modelfile")
def import_modelfile(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", exists=True, help="One, or a folder of them.")
    ],
    *,
    name: NameOption = None,
    write: WriteOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Import Ollama's Modelfiles.

    Models of Ollama's own store are found there.
    """
    from llama_router.config.importers.foreign import checked_modelfile
    from llama_router.config.problems import ConfigError

    files = sorted(_modelfiles(path)) if path.is_dir() else [path]
    if not files:
        refuse(f"there is no Modelfile in {path}", EXIT_USAGE)
    if name is not None and len(files) > 1:
        refuse(f"there are {len(files)} Modelfiles, which cannot all be called {name}", EXIT_USAGE)
    try:
        found = [checked_modelfile(file, name, os.environ, Path.home()) for file in files]
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    _import(found, context, config, write=write, as_json=as_json)


@app.command("lm-studio")
def import_lm_studio(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, help="LM Studio's own by default."
        ),
    ] = None,
    *,
    write: WriteOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Import the models of LM Studio's folder.

    The files stay where they are.
    """
    from llama_router.config.importers import lm_studio
    from llama_router.config.importers.foreign import checked_lm_studio
    from llama_router.config.problems import ConfigError

    place = folder or lm_studio.default_folder(Path.home())
    if place is None:
        refuse("LM Studio's folder of models is not there; say which it is", EXIT_USAGE)
    try:
        found = checked_lm_studio(place)
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    _import([found], context, config, write=write, as_json=as_json)


def _modelfiles(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        if "modelfile" in path.name.lower().split(".") and path.is_file():
            found.append(path)
            if len(found) == _MODELFILES_MAX_COUNT:
                break
    return found


def _read(file: Path, form: str) -> "Foreign":
    from llama_router.config.importers import read_foreign
    from llama_router.config.problems import ConfigError
    from llama_router.engines.kinds import check_command

    try:
        foreign = read_foreign(file, form=form, check_command=check_command)
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    if foreign is None:
        raise AssertionError(f"{form} was not read as such")
    return foreign


def _import(
    found: list["Foreign"],
    context: typer.Context,
    config: Path | None,
    *,
    write: bool,
    as_json: bool,
) -> None:
    """Show what comes of it, or write it; the report goes to stderr, or into the JSON."""
    from llama_router.config.importers.writing import rendered
    from llama_router.config.secrets import BLACKED_OUT, redacted

    outcome: dict[str, Any] = {"reports": [one.report.as_json() for one in found]}
    if write:
        given: Overrides = context.obj or Overrides()
        outcome |= _write(found, given.config_file(config))
    if as_json:
        outcome["config"] = [redacted(one.native.content) for one in found]
        show_json(outcome)
        return
    has_secrets = False
    for one in found:
        if not write:
            text = rendered(redacted(one.native.content), one.report)
            has_secrets = has_secrets or BLACKED_OUT in text
            typer.echo(text, nl=False)
        for line in one.report.lines():
            _tell(line)
    if write:
        for key in outcome["kept"]:
            _tell(f"{key} stays as {outcome['file']} has it")
        done = "written to" if outcome["changed"] else "all of it is already in"
        _tell(f"{done} {outcome['file']}")
    else:
        if has_secrets:
            _tell(f"secrets are shown as {BLACKED_OUT}, so this is no config to use")
        _tell("nothing is written; --write puts it into the config file")


def _write(found: list["Foreign"], path: Path) -> dict[str, Any]:
    """Merge into the file, which must then be in order as a whole; else nothing is written."""
    from llama_router.config import files
    from llama_router.config.importers.writing import merged_text
    from llama_router.config.load import load_text
    from llama_router.config.problems import ConfigError
    from llama_router.engines.kinds import check_command

    try:
        before = files.read_bytes(path).decode("utf-8-sig") if path.exists() else ""
        text, rest, kept = before, found, list[str]()
        if not before.strip():
            text, rest = _new_text(found[0], path), found[1:]
        for one in rest:
            merged = merged_text(text, path, one.native.content)
            text, kept = merged.text, [*kept, *merged.kept]
        load_text(text, path, check_command=check_command)
        if text != before:
            files.replace(path, text.encode())
    except UnicodeDecodeError:
        refuse(f"{path}: is not UTF-8 text", EXIT_USAGE)
    except ConfigError as error:
        refuse(f"nothing is written to {path}:\n{error}", EXIT_USAGE)
    except files.FileError as error:
        refuse(f"{path} {error}", EXIT_FAILED)
    return {"file": str(path), "changed": text != before, "kept": list(dict.fromkeys(kept))}


def _new_text(one: "Foreign", path: Path) -> str:
    from llama_router.config.importers.writing import rendered

    if path.suffix.lower() == ".json":
        return json.dumps(one.native.content, indent=2, ensure_ascii=False) + "\n"
    return rendered(one.native.content, one.report)


def _tell(message: str) -> None:
    typer.echo(escaped(message), err=True)
