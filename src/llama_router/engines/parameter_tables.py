"""Which options an engine has: asked of the program itself, once for each that there is.

A program is asked with ``--help``, in a process of its own that has to be quick and brief. What it
said is kept as long as the file is the same: its path, size and time of change.
"""

import asyncio
import contextlib
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from llama_router.engines.embedded.flags import Choice, Flag, integer, number
from llama_router.engines.embedded.table import TABLE, first_experts, layers, reciprocal, seed
from llama_router.engines.environment import engine_environment, without_hub_tokens
from llama_router.engines.kinds import embedded, kind_of, llama_server
from llama_router.engines.parameter_help import parse_help
from llama_router.engines.parameters import Parameter, ParameterKind, ParameterTable, table_of

_log = logging.getLogger(__name__)

HELP_TIMEOUT_S: Final = 10.0
"""llama-server says its help in 30 ms; a GPU driver that has to wake up takes seconds."""
MAX_HELP_BYTES: Final = 1024 * 1024
"""Its help has 60 kB."""
MAX_TABLES_COUNT: Final = 16
"""Programs that are remembered; people have one or two."""

MUTE_S: Final = 60.0
"""Who did not answer is not asked again for so long: each load would wait for it."""


class _Identity(msgspec.Struct, frozen=True):
    """A program's file, so that another build of it is asked again."""

    path: str
    size_bytes: int
    modified_ns: int


class ParameterTables:
    """Tables by program. ``env`` is the router's own environment."""

    def __init__(self, env: Mapping[str, str], found_llama_server: Path | None) -> None:
        self._env = env
        self._found = found_llama_server
        self._tables: dict[_Identity, ParameterTable] = {}
        self._latest: dict[str, ParameterTable] = {}
        # When programs were asked that said nothing that could be understood.
        self._mute: dict[_Identity, float] = {}
        self._lock = asyncio.Lock()

    def inherit(self, env: Mapping[str, str]) -> None:
        """Ask programs in this environment from now on."""
        self._env = env

    async def of(self, command: Sequence[str]) -> ParameterTable | None:
        """Return the table for a model's command, None for an engine that cannot be asked."""
        program = self._program(command)
        if program is None:
            return None
        if program == _EMBEDDED:
            table = self._latest.get(program)
            if table is None:
                table = self._latest[program] = embedded_table()
            return table
        identity = await asyncio.to_thread(_identity_of, program, self._env.get("PATH"))
        if identity is None:
            return None
        async with self._lock:
            table = self._tables.get(identity)
            if table is None:
                asked_s = self._mute.get(identity, -math.inf)
                if time.monotonic() < asked_s + MUTE_S:
                    return None
                table = await asyncio.to_thread(lambda: parse_help(self._help_of(identity.path)))
                if len(self._tables) + len(self._mute) >= MAX_TABLES_COUNT:
                    self._tables.clear()
                    self._mute.clear()
                if not table.parameters:
                    self._mute[identity] = time.monotonic()
                    return None
                self._tables[identity] = table
        self._latest[program] = table
        return table

    def known(self, command: Sequence[str]) -> ParameterTable | None:
        """Return what ``of`` returned last for this program; None when it was never asked."""
        program = self._program(command)
        return None if program is None else self._latest.get(program)

    def _program(self, command: Sequence[str]) -> str | None:
        """Return whom to ask: a llama-server, or the embedded engine."""
        if not command:
            return None
        if command[0] == llama_server.LLAMA_SERVER:
            return _EMBEDDED if self._found is None else str(self._found)
        kind = kind_of(command)
        if kind is embedded.KIND:
            return _EMBEDDED
        return command[0] if kind is llama_server.KIND else None

    def _help_of(self, program: str) -> str:
        """Return what ``--help`` says, nothing when that does not come to its end. Blocks."""
        try:
            process = subprocess.Popen(
                [program, "--help"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=without_hub_tokens(engine_environment(self._env, {})),
                start_new_session=True,
            )
        except OSError as error:
            _log.warning("%s does not say its options: %s", program, error)
            return ""
        said: list[bytes] = []
        stdout = process.stdout
        assert stdout is not None  # noqa: S101 - asked for above

        def read() -> None:
            with stdout:
                said.append(stdout.read(MAX_HELP_BYTES))

        # Whoever holds the pipe open, a process that has left the program's group even, holds up
        # nobody but this thread.
        reader = threading.Thread(target=read, name="help", daemon=True)
        reader.start()
        reader.join(HELP_TIMEOUT_S)
        is_late = reader.is_alive()
        _end(process)
        process.wait()
        if is_late:
            _log.warning("%s did not say its options within %g s", program, HELP_TIMEOUT_S)
            return ""
        return b"".join(said).decode("utf-8", "replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that need not be there any more, with what it has started where possible."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


_EMBEDDED: Final = ""


def embedded_table() -> ParameterTable:
    """Return which options the embedded engine has that may be set."""
    return table_of(_embedded_parameters(TABLE))


def _embedded_parameters(flags: Sequence[Flag]) -> Iterator[Parameter]:
    by_name = {name: flag for flag in flags for name in flag.names}
    for flag in flags:
        longs = [name for name in flag.names if name.startswith("--")]
        if not longs:
            continue
        is_opposite = longs[0].startswith("--no-") and f"--{longs[0][5:]}" in by_name
        if is_opposite or (flag.read is None and flag.names[0].startswith("--no-mmproj")):
            continue
        name = longs[0].removeprefix("--")
        opposite = by_name.get(f"--no-{name}") if flag.read is None else None
        kind, choices, is_list = _kind_of(flag)
        yield Parameter(
            name=name,
            kind=kind,
            aliases=tuple(each.lstrip("-") for each in flag.names if each != longs[0]),
            opposites=(
                tuple(
                    each.lstrip("-")
                    for each in sorted(opposite.names, key=lambda each: not each.startswith("--"))
                )
                if opposite
                else ()
            ),
            choices=choices,
            is_list=is_list,
            default=flag.default or "",
        )


def _kind_of(flag: Flag) -> tuple[ParameterKind, tuple[str, ...], bool]:
    convert = flag.convert
    if flag.read is None:
        return ParameterKind.FLAG, (), False
    if isinstance(convert, Choice):
        return ParameterKind.CHOICE, tuple(convert.options), False
    if convert is layers:
        return ParameterKind.INTEGER, ("auto", "all"), False
    if convert in (integer, seed, first_experts):
        return ParameterKind.INTEGER, (), False
    if convert in (number, reciprocal):
        return ParameterKind.NUMBER, (), False
    return ParameterKind.TEXT, (), False


def _identity_of(program: str, search_path: str | None) -> _Identity | None:
    """Return the file that is run, None if nothing can be. Reads folders."""
    found = shutil.which(program, path=search_path)
    if found is None:
        return None
    path = Path(found).absolute()
    try:
        status = path.stat()
    except OSError:
        return None
    return _Identity(str(path), status.st_size, status.st_mtime_ns)
