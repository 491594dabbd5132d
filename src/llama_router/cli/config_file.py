"""``llama-router config``: look at the config, check it, change it without losing a comment."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from llama_router.cli.asking import (
    JsonOption,
    ModelArgument,
    address_of,
    answer_of,
    show_json,
    show_table,
)
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse
from llama_router.cli.logs import escaped
from llama_router.cli.router_client import (
    Address,
    AddressError,
    ConfigOption,
    RouterClientError,
    TokenOption,
    UrlOption,
    ask,
    find_address,
)
from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from llama_router.config.edit import Edit
    from llama_router.config.load import LoadedConfig
    from llama_router.config.problems import Keys

_NOT_YET = "is not there yet: defaults hold, and the first start of `llama-router` writes it"
# How a place in a list is named that stands for an entry.
_BY_NAME = "name="
# How validate() begins to say that there is no such setting.
_UNKNOWN_KEY = "is not a known key"
_NOT_FOUND = 404
# Of the models that a reload has changed.
_NAMED_COUNT = 5

app = typer.Typer(
    name="config",
    help="Show, check and change the config file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Such as router.port or models[qwen].ttl_s.")
]
FileOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The config, if not the usual one.")
]


@app.command()
def path(context: typer.Context, config: FileOption = None) -> None:
    """Print where the config file is."""
    typer.echo(_path(context, config))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config file, for editors."""
    from llama_router.config.json_schema import json_schema

    show_json(json_schema())


@app.command()
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The usual config, if not given.")
    ] = None,
) -> None:
    """Check a config and list every fault of it with its place. Exit status: 0 if it has none.

    Options of engines are held against those that the engine here has; a fault is a warning.
    """
    from llama_router.cli.parameter_check import parameter_problems

    chosen = file or _path(context, None)
    if file is None and _is_to_be_made(context, None):
        typer.echo(f"{chosen} {_NOT_YET}")
        return
    loaded = _loaded(chosen)
    for warning in (*loaded.warnings, *parameter_problems(loaded)):
        typer.echo(escaped(str(warning)), err=True)
    typer.echo(f"{chosen} is in order")


@app.command(short_help="Print what holds for a model, and where it comes from.")
def show(
    context: typer.Context,
    model: ModelArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Print what holds for a model in the end, and where each value comes from.

    Asks the running router; without one, goes by the file.
    """
    found = _resolved(context, model, config, url, token)
    if as_json:
        show_json(found)
        return
    origins = found["origins"]
    # Values last, as a command is longer than any line.
    rows = [(key, origins.get(key, ""), _shown(value)) for key, value in _flat(found["settings"])]
    show_table(("SETTING", "FROM", "VALUE"), rows)


@app.command(short_help="Print what the file says at a place.")
def get(
    context: typer.Context,
    key: KeyArgument,
    *,
    config: FileOption = None,
) -> None:
    """Print what the file says at a place, as JSON; nothing if it leaves that to the default."""
    file, keys = _path(context, config), _keys(key)
    _refuse_unknown(keys)
    if _is_to_be_made(context, config):
        refuse(f"{file} {_NOT_YET}", EXIT_FAILED)
    node: Any = _loaded(file).document.plain()[0]
    for part in keys:
        if isinstance(part, str) and part.startswith("name=") and isinstance(node, list):
            name = part.removeprefix("name=")
            node = next((item for item in node if item.get("name") == name), None)
        elif isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            node = None
    if node is None:
        refuse(f"{key} is not set, so its default holds", EXIT_FAILED)
    typer.echo(json.dumps(node, ensure_ascii=False))


# A number may be negative: what looks like an option is a value.
@app.command("set", context_settings={"ignore_unknown_options": True})
def set_value(
    context: typer.Context,
    key: KeyArgument,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="As in YAML: 8083, true, [a, b], text.")
    ],
    *,
    config: FileOption = None,
    token: TokenOption = None,
) -> None:
    """Set one value in the file; a running router follows."""
    from llama_router.config.edit import Edit

    _change(context, config, token, Edit("set", _keys(key), _value(value)))


@app.command(short_help="Take one value out of the file.")
def unset(
    context: typer.Context,
    key: KeyArgument,
    *,
    config: FileOption = None,
    token: TokenOption = None,
) -> None:
    """Take one value out of the file, so that its default holds; a running router follows."""
    from llama_router.config.edit import Edit

    _change(context, config, token, Edit("remove", _keys(key)))


@app.command(short_help="Have the running router read its config again.")
def reload(
    context: typer.Context,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Have the running router read its config again; what is unchanged is not touched."""
    address = address_of(context, config, url, token)
    report = answer_of(address, "POST", "/admin/reload")
    if as_json:
        show_json(report)
    else:
        _tell_reload(report)


def _resolved(
    context: typer.Context,
    model: str,
    config: Path | None,
    url: str | None,
    token: str | None,
) -> dict[str, Any]:
    try:
        address = find_address(context.obj or Overrides(), config, url, token)
        query = urlencode({"resolved": model})
        found: dict[str, Any] = ask(address, "GET", f"/admin/config?{query}")
    except AddressError as error:
        refuse(str(error), EXIT_USAGE)
    except RouterClientError as error:
        if error.status or url is not None:
            refuse(str(error), EXIT_USAGE if error.status else EXIT_FAILED)
        return _resolved_from_file(_path(context, config), model)
    return found


def _resolved_from_file(file: Path, model: str) -> dict[str, Any]:
    from llama_router.config import files
    from llama_router.config.resolve import place_of, resolve
    from llama_router.config.secrets import redacted

    if not files.is_there(file):
        message = f"no router runs, and there is no {file} yet: start one with `llama-router`"
        refuse(message, EXIT_USAGE)
    loaded = _loaded(file)
    entries = {name: one for one in loaded.config.models for name in (one.name, *one.aliases)}
    if model not in entries:
        known = ", ".join(entry.name for entry in loaded.config.models) or "none"
        refuse(
            f"no router runs, and {file} has no entry for '{model}'; it has: {known}", EXIT_USAGE
        )
    resolved = resolve(loaded.config, entries[model])
    return {
        "model": model,
        "settings": redacted(resolved.entry.model_dump(mode="json"), place=("models", 0)),
        "origins": {
            key: place_of(origin, loaded.document) for key, origin in resolved.origins.items()
        },
    }


def _change(context: typer.Context, config: Path | None, token: str | None, edit: "Edit") -> None:
    file = _path(context, config)
    # Until it has followed, the router is where it was, and wants the key that it wanted.
    address = _address_before(context, file, token)
    if _is_to_be_made(context, config):
        _create(file)
    is_changed = _write(file, edit)
    done = f"{file} is changed" if is_changed else f"{file} says so already"
    try:
        address = address or find_address(context.obj or Overrides(), file, token=token)
        report = ask(address, "POST", "/admin/reload")
    except (AddressError, RouterClientError) as error:
        if getattr(error, "status", 0):
            refuse(f"{done}, but the router did not follow: {error}", EXIT_FAILED)
        typer.echo(f"{done}; no router runs")
        return
    typer.echo(done)
    _tell_reload(report)
    if edit.op == "set":
        _tell_of_no_model(address, edit.path)


def _create(file: Path) -> None:
    from llama_router.config.defaults import create_default
    from llama_router.config.problems import ConfigError

    try:
        create_default(file)
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    typer.echo(f"created {file}")


def _write(file: Path, edit: "Edit") -> bool:
    """Make the change in the file, and tell of warnings; return whether it was one."""
    from llama_router.config import files
    from llama_router.config.edit import ChangedError, edited_document, write
    from llama_router.config.importers import load_foreign
    from llama_router.config.load import load_document
    from llama_router.config.problems import ConfigError
    from llama_router.engines.kinds import check_command

    try:
        if load_foreign(file) is not None:
            problem = f"{file} is another program's; `llama-router import` makes one of ours of it"
            refuse(problem, EXIT_USAGE)
        before = files.read_bytes(file).decode("utf-8-sig")
        changed = edited_document(before, [edit], file)
        loaded = load_document(changed, check_command=check_command)
        if changed.text != before:
            write(file, before, changed.text)
    except ChangedError as error:
        refuse(str(error), EXIT_FAILED)
    except files.FileError as error:
        refuse(f"{file} {error}", EXIT_FAILED)
    except UnicodeDecodeError:
        refuse(f"{file} is not UTF-8 text", EXIT_FAILED)
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    for warning in loaded.warnings:
        typer.echo(escaped(str(warning)), err=True)
    return changed.text != before


def _address_before(context: typer.Context, file: Path, token: str | None) -> Address | None:
    """Return where the router is by the file as it is; None if that has faults, to be mended."""
    from llama_router.config import files

    try:
        chosen = file if files.is_there(file) else None
        return find_address(context.obj or Overrides(), chosen, token=token)
    except AddressError:
        return None


def _tell_of_no_model(address: Address, keys: "Keys") -> None:
    """Say so if a model was given settings that the router does not have: its name may be wrong."""
    if keys[0] != "models" or len(keys) == 1 or not str(keys[1]).startswith(_BY_NAME):
        return
    name = str(keys[1]).removeprefix(_BY_NAME)
    try:
        ask(address, "GET", f"/admin/models/{quote(name)}")
    except (AddressError, RouterClientError) as error:
        if getattr(error, "status", 0) == _NOT_FOUND:
            note = f"there is no model '{name}' now: what is set for it waits until there is one"
            typer.echo(escaped(note), err=True)


def _tell_reload(report: Mapping[str, Any]) -> None:
    parts = [
        _counted(report[what], what) for what in ("changed", "added", "removed") if report[what]
    ]
    typer.echo(escaped("; ".join(parts) if parts else "reloaded: no model is affected"))
    for setting in report["restart_needed"]:
        typer.echo(escaped(f"{setting} holds after the router's next start"))
    for warning in report["warnings"]:
        typer.echo(escaped(warning), err=True)


def _counted(models: list[str], what: str) -> str:
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    more = ", …" if len(models) > _NAMED_COUNT else ""
    return f"{count} {what}: {', '.join(models[:_NAMED_COUNT])}{more}"


def _path(context: typer.Context, config: Path | None) -> Path:
    given: Overrides = context.obj or Overrides()
    return given.config_file(config)


def _is_to_be_made(context: typer.Context, config: Path | None) -> bool:
    """Whether the usual config is meant, and not there: the first start writes it."""
    from llama_router.config import files

    given: Overrides = context.obj or Overrides()
    if (config or given.config_path) is not None:
        return False
    return not files.is_there(_path(context, None))


def _refuse_unknown(keys: "Keys") -> None:
    """End the command if there is no such setting."""
    from llama_router.config.problems import format_keys
    from llama_router.config.validate import validate

    content: Any = 1
    for key in reversed(keys):
        if isinstance(key, int):
            content = [content]
        elif key.startswith(_BY_NAME):
            named = content if isinstance(content, dict) else {}
            content = [{"name": key.removeprefix(_BY_NAME)} | named]
        else:
            content = {key: content}
    for issue in validate(content)[1]:
        if issue.message.startswith(_UNKNOWN_KEY):
            refuse(f"{format_keys(issue.keys)}: {issue.message}", EXIT_USAGE)


def _loaded(file: Path) -> "LoadedConfig":
    from llama_router.config.importers import load_any
    from llama_router.config.problems import ConfigError
    from llama_router.engines.kinds import check_command

    try:
        return load_any(file, check_command=check_command, rewrite=False)
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)


def _keys(text: str) -> tuple[str | int, ...]:
    from llama_router.config.problems import parse_keys

    try:
        return parse_keys(text)
    except ValueError as error:
        refuse(str(error), EXIT_USAGE)


def _value(text: str) -> Any:  # noqa: ANN401 - any value of a config
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        refuse(f"'{text}' is no value: {reason}; put text in quotes", EXIT_USAGE)
    if value is None and text.strip():
        refuse("null is no value; `llama-router config unset` takes one out", EXIT_USAGE)
    if isinstance(value, list | dict):
        # On one line these have brackets; `fast: 7B` is a sentence.
        return value if text.lstrip().startswith(("[", "{")) else text
    # A date, say: text for who wrote it.
    return value if isinstance(value, bool | int | float | str) else text


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], {}):
            rows.append((prefix + key, value))
    return rows


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
