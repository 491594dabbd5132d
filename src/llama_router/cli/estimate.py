"""``llama-router estimate``: how much memory a model will need, and for what."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import typer

from llama_router.catalog.footprint import Footprint, Machine, estimate, read_model
from llama_router.catalog.footprint_arguments import (
    ArgumentsError,
    LaunchArguments,
    parse_arguments,
)
from llama_router.catalog.footprint_fit import FitOutputError, Parts, fit_arguments, parse_fit
from llama_router.catalog.footprint_placement import PURPOSES, Gpu
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.tiny import split_path
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, tell
from llama_router.cli.estimate_compare import (
    CompareError,
    comparison,
    find_fit_params,
    run_fit_params,
)
from llama_router.cli.serving import Overrides

_MIB_BYTES = 2**20
_MAX_PARTS = 1000


class _RefusedError(Exception):
    """Why there is no estimate, in words for the user."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A model's files and what its engine is started with."""

    path: Path
    parts: tuple[Path, ...]
    arguments: LaunchArguments
    program: Path | None = None  # of the engine, when the config says so


def estimate_memory(
    model: str,
    arguments: Sequence[str] = (),
    *,
    as_json: bool = False,
    compare: bool = False,
    config_path: Path | None = None,
    models_dirs: Sequence[Path] = (),
) -> int:
    """Print what ``model``, a file or a name, needs; return the exit status.

    ``arguments`` are llama-server's; without any, those are taken that the config says for it. A
    name is looked up in the config and in ``models_dirs`` as well. ``compare``: with what llama.cpp
    itself says.
    """
    try:
        target = _target(model, arguments, Overrides(config_path, models_dirs=tuple(models_dirs)))
        files = read_model(target.path, target.arguments, parts=target.parts)
    except GgufError as error:
        return _refuse(f"{model}: {error.reason}", EXIT_FAILED)
    except _RefusedError as error:
        return _refuse(str(error), EXIT_USAGE)
    found = estimate(files, target.arguments, _machine())
    content = as_dict(found)
    if not as_json:
        typer.echo(table(found))
    status = 0
    if compare:
        try:
            fitted = _fitted(target, found)
        except CompareError as error:
            status = _refuse(str(error), EXIT_FAILED)
        else:
            content["fit_params"] = msgspec.to_builtins(fitted)
            if not as_json:
                typer.echo(f"\n{comparison(found, fitted)}")
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    return status


def table(found: Footprint) -> str:
    """Lay the breakdown out for people: one column for each device, sizes in MiB."""
    purposes = [name for name in PURPOSES if any(getattr(need, name) for need in found.needs)]
    rows = [["MiB", *(need.device for need in found.needs)]]
    rows += [
        [name.replace("_", " "), *(_mib(getattr(need, name)) for need in found.needs)]
        for name in purposes
    ]
    rows.append(["total", *(_mib(need.total) for need in found.needs)])
    if any(need.kept_prompts for need in found.needs):
        rows.append(["kept prompts", *(_mib(need.kept_prompts) for need in found.needs)])
        rows.append(["in the long run", *(_mib(need.lasting) for need in found.needs)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    slots = f"{found.slots} slot{'s' if found.slots > 1 else ''}"
    if found.slots > 1:
        slots += " that share it" if found.is_unified else ", each with its part"
    lines += ["", f"context: {found.ctx_tokens} tokens, {slots}"]
    if len(found.needs) > 1:
        lines.append(f"layers on graphics cards: {found.gpu_layers}, the output's included")
    if found.may_grow_bytes:
        lines.append(
            f"may grow in RAM by {_mib(found.may_grow_bytes)} MiB more: prompts that llama-server"
            " keeps (--cache-ram, --ctx-checkpoints)"
        )
    return "\n".join([*lines, *found.notes])


def as_dict(found: Footprint) -> dict[str, Any]:
    """Give the breakdown for programs, sizes in bytes."""
    content: dict[str, Any] = msgspec.to_builtins(found)
    for need, row in zip(found.needs, content["needs"], strict=True):
        row |= {"total": need.total, "lasting": need.lasting}
    return {**content, "total": found.total, "lasting": sum(found.reserve().values())}


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB_BYTES:.1f}"


def _target(model: str, arguments: Sequence[str], given: Overrides) -> _Target:
    path = Path(model).expanduser()
    if path.is_file():
        launch = _parsed(arguments)
        return _Target(path, _parts_beside(path), launch)
    return _named_target(model, arguments, given)


def _named_target(model: str, arguments: Sequence[str], given: Overrides) -> _Target:
    from llama_router.catalog.resolve import AmbiguousModelError, UnknownModelError
    from llama_router.config.load import with_router
    from llama_router.config.problems import ConfigError
    from llama_router.engines.kinds.command import CommandError, fill_command
    from llama_router.engines.parameters import ParameterError, arguments_of
    from llama_router.runtime.roster import take_stock

    try:
        config = given.read_config()
        settings = given.settings()
        if folders := given.folders():
            settings["models_dirs"] = (*config.router.models_dirs, *folders)
        if settings:
            config = with_router(config, settings, "command line")
        roster = take_stock(config, os.environ, Path.home())
        found = roster.catalog.resolve(model)
        entry = roster[found.id]
        if found.invalid:
            raise _RefusedError(f"{found.id}: {found.invalid}")
        if found.path is None:
            raise _RefusedError(
                f"{found.id} has no file to tell it from; `llama-router plan` says what the router "
                "reckons with: the config's word, or what was measured"
            )
        command = arguments or (
            *fill_command(
                entry.spawn.command, entry.facts, host="127.0.0.1", port=config.router.base_port
            ),
            *arguments_of(entry.entry.parameters, None),
        )
    except UnknownModelError:
        raise _RefusedError(
            f"{model!r} is neither a file nor a model that is known; name its file, or where to "
            "look: --models-dir or --config"
        ) from None
    except AmbiguousModelError as error:
        raise _RefusedError(str(error)) from None
    except (ConfigError, CommandError, ParameterError) as error:
        raise _RefusedError(str(error)) from None
    launch = _parsed(command)
    if launch.mmproj is None and found.mmproj is not None and arguments:
        launch = msgspec.structs.replace(launch, mmproj=found.mmproj)
    return _Target(found.path, found.parts, launch, None if arguments else Path(command[0]))


def _fitted(target: _Target, found: Footprint) -> dict[str, Parts]:
    from llama_router.engines.kinds import find_llama_server

    server = target.program
    if server is None or not server.is_absolute():
        server = find_llama_server(Path(sys.argv[0]))
    program = find_fit_params(server)
    given = fit_arguments(target.path, target.arguments, found)
    try:
        return parse_fit(run_fit_params(program, given))
    except FitOutputError as error:
        raise CompareError(f"{program} printed what is not understood: {error}") from None


def _parsed(arguments: Sequence[str]) -> LaunchArguments:
    try:
        return parse_arguments(arguments, os.environ)
    except ArgumentsError as error:
        raise _RefusedError(str(error)) from None


def _parts_beside(path: Path) -> tuple[Path, ...]:
    """Give all parts of a split file whose first part is given."""
    from llama_router.catalog.gguf_reader import read_gguf

    count = min(read_gguf(path).split_count, _MAX_PARTS)
    if count == 1:
        return ()
    whole = path.with_name(f"{path.stem.rpartition('-of-')[0][: -len('-00001')]}.gguf")
    return tuple(split_path(whole, part, count) for part in range(1, count + 1))


def _machine() -> Machine:
    from llama_router.engines.devices import CPU, find_devices

    devices = find_devices()
    return Machine(
        ram_bytes=sum(device.total_bytes for device in devices if device.name == CPU),
        gpus=tuple(
            Gpu(device.name, device.available_bytes) for device in devices if device.name != CPU
        ),
    )


def _refuse(message: str, status: int) -> int:
    tell(message)
    return status
