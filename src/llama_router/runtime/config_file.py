"""Where a router's config comes from, and how it is read while requests are served."""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llama_router.config.edit import etag
from llama_router.config.importers import load_foreign
from llama_router.config.load import LoadedConfig, load, load_text, with_router
from llama_router.config.problems import ConfigError, Keys, Problem
from llama_router.config.schema import Config, public_bind_problem
from llama_router.engines.kinds import check_command
from llama_router.store.keys import KeyFile, KeyFileError

_COMMAND_LINE = "command line"
_HOST_KEYS = ("router", "host")
# A longer file takes Python so long that the requests would feel it: a process of its own reads it.
_READ_HERE_MAX_BYTES = 32 * 1024
# Of the largest file that is allowed on a slow machine.
_READ_TIMEOUT_S = 120.0
_NICE = 10
_CHILD = "from llama_router.runtime import config_file; config_file.main()"


class ReadError(Exception):
    """A process that reads the config, or the models on disk, has given no answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A config that can be run, and the text that it stands in (None: in no file).

    ``is_foreign``: the text is in another program's form.
    """

    config: Config
    text: str | None = field(default=None, repr=False)
    warnings: tuple[Problem, ...] = ()
    is_foreign: bool = False

    @property
    def etag(self) -> str:
        """What names this text; empty without one."""
        return "" if self.text is None else etag(self.text)


class ConfigSource(Protocol):
    """What a router's config is read from, again for each reload."""

    @property
    def path(self) -> Path | None:
        """The file; None when there is none."""

    def read(self) -> Reading:
        """Read it; blocks. Raises ConfigError."""

    def read_text(self, text: str) -> Reading:
        """Read this text as if it stood in the file; blocks. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class FixedConfig:
    """A config that is in no file. Implements ConfigSource."""

    config: Config
    path: None = None

    def read(self) -> Reading:
        """See ConfigSource."""
        return Reading(self.config)

    def read_text(self, text: str) -> Reading:
        """See ConfigSource."""
        loaded = load_text(text, Path("config.yaml"), check_command=check_command)
        return Reading(loaded.config, text, loaded.warnings)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file, and what the command line says over it. Implements ConfigSource.

    ``settings`` take the place of those of ``router``; ``models_dirs`` are added to its folders.
    ``key_file`` may hold keys beside those of the config. The file may be another program's.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    models_dirs: tuple[str, ...] = ()
    key_file: Path | None = None

    def read(self) -> Reading:
        """See ConfigSource."""
        loaded, is_foreign = self._load()
        return self._reading(loaded, is_foreign=is_foreign)

    def problem(self, keys: Keys, message: str) -> Problem:
        """Say what is wrong with a value that only its user can judge, with its line."""
        return self._load()[0].problem(keys, message)

    def _load(self) -> tuple[LoadedConfig, bool]:
        """Return what the file says, and whether it is another program's. Raises ConfigError."""
        loaded = load_foreign(self.path, check_command=check_command)
        if loaded is not None:
            return loaded, True
        return load(self.path, check_command=check_command), False

    def read_text(self, text: str) -> Reading:
        """See ConfigSource."""
        loaded = load_text(text, self.path, check_command=check_command)
        return self._reading(loaded, is_foreign=False)

    def _reading(self, loaded: LoadedConfig, *, is_foreign: bool) -> Reading:
        text = loaded.document.text
        return Reading(self._overlaid(loaded), text, loaded.warnings, is_foreign)

    def _overlaid(self, loaded: LoadedConfig) -> Config:
        try:
            return overlaid(
                loaded.config,
                self.settings,
                self.models_dirs,
                has_more_keys=self.key_file is not None and _holds_keys(self.key_file),
            )
        except _PublicBindError as error:
            if "host" in self.settings:
                raise
            raise ConfigError([loaded.problem(_HOST_KEYS, error.message)]) from None


class _PublicBindError(ConfigError):
    """The address is not for this machine alone, and nothing protects it."""

    def __init__(self, message: str) -> None:
        super().__init__([Problem(_COMMAND_LINE, 0, ".".join(_HOST_KEYS), message)])
        self.message = message


def _holds_keys(path: Path) -> bool:
    """Whether keys were made that do not stand in the config; a broken file ends the start."""
    try:
        return bool(KeyFile(path).keys)
    except KeyFileError:
        return True


def overlaid(
    config: Config,
    settings: Mapping[str, Any],
    models_dirs: Sequence[str] = (),
    *,
    has_more_keys: bool = False,
) -> Config:
    """Return a config with the command line over it. Raises ConfigError."""
    changes = dict(settings)
    if models_dirs:
        changes["models_dirs"] = (*config.router.models_dirs, *models_dirs)
    if changes:
        config = with_router(config, changes, _COMMAND_LINE)
    problem = public_bind_problem(config.router, has_more_keys=has_more_keys)
    if problem is not None:
        raise _PublicBindError(problem)
    return config


def read_aside(source: ConfigSource, text: str | None = None) -> Reading:
    """Read a config, or ``text`` in its place, without holding up other threads for long.

    Blocks its own. Raises ConfigError or ReadError.
    """
    size_bytes = _size_of(source) if text is None else len(text)
    if size_bytes <= _READ_HERE_MAX_BYTES:
        return _read(source, text)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=pickle.dumps((source, text)),
            capture_output=True,
            check=True,
            timeout=_READ_TIMEOUT_S,
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ReadError(f"no process could read the config: {type(error).__name__}") from None
    # It comes from our own child, over a pipe.
    answer = pickle.loads(child.stdout)  # noqa: S301
    if isinstance(answer, Reading):
        return answer
    raise ConfigError(answer)


def _size_of(source: ConfigSource) -> int:
    try:
        return source.path.stat().st_size if source.path is not None else 0
    except OSError:
        return 0


def _read(source: ConfigSource, text: str | None) -> Reading:
    return source.read() if text is None else source.read_text(text)


def main() -> None:
    """Read the config that stdin names, in what time is left over; write what comes of it."""
    if sys.platform != "win32":
        os.nice(_NICE)
    answer: Reading | tuple[Problem, ...]
    try:
        # It comes from our own parent.
        answer = _read(*pickle.load(sys.stdin.buffer))  # noqa: S301
    except ConfigError as error:
        answer = error.problems
    sys.stdout.buffer.write(pickle.dumps(answer))
