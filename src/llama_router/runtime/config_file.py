"""Where a router's config comes from, and how it is read while requests are served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llama_router.config import files
from llama_router.config.document import Document
from llama_router.config.edit import etag
from llama_router.config.importers import load_foreign
from llama_router.config.load import LoadedConfig, load, load_document, load_text, with_router
from llama_router.config.problems import ConfigError, Issue, Problem
from llama_router.config.schema import Config, public_bind_problem
from llama_router.engines.kinds import check_command
from llama_router.store.keys import KeyFile, KeyFileError

_COMMAND_LINE = "command line"
_HOST_KEYS = ("router", "host")


class ReadError(Exception):
    """A process that reads the config, or the models on disk, has given no answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A config that can be run, and the text that it stands in (None: in no file).

    ``is_foreign``: the text is in another program's form. ``etag`` names the text, empty without.
    """

    config: Config
    text: str | None = field(default=None, repr=False)
    warnings: tuple[Problem, ...] = ()
    is_foreign: bool = False
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        # Now, as whoever reads a long text is not on the event loop.
        object.__setattr__(self, "etag", "" if self.text is None else etag(self.text))


class ConfigSource(Protocol):
    """What a router's config is read from, again for each reload."""

    @property
    def path(self) -> Path | None:
        """The file; None when there is none."""

    def read(self) -> Reading:
        """Read it; blocks. Raises ConfigError."""

    def read_text(self, text: str) -> Reading:
        """Read this text as if it stood in the file; blocks. Raises ConfigError."""

    def read_document(self, document: Document) -> Reading:
        """Do the same with one that is parsed already, which may change it."""


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

    def read_document(self, document: Document) -> Reading:
        """See ConfigSource."""
        loaded = load_document(document, check_command=check_command)
        return Reading(loaded.config, document.text, loaded.warnings)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file, and what the command line says over it. Implements ConfigSource.

    ``settings`` take the place of those of ``router``; ``models_dirs`` are added to its folders.
    ``key_file`` may hold keys beside those of the config. The file may be another program's.
    ``text_until_there`` is read as long as there is no file; without it, that is a fault.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    models_dirs: tuple[str, ...] = ()
    key_file: Path | None = None
    text_until_there: str = field(default="", repr=False)

    def read(self) -> Reading:
        """See ConfigSource."""
        loaded, is_foreign = self._load()
        return self._reading(loaded, is_foreign=is_foreign)

    def _load(self) -> tuple[LoadedConfig, bool]:
        """Return what the file says, and whether it is another program's. Raises ConfigError."""
        if self.text_until_there and not files.is_there(self.path):
            text = self.text_until_there
            return load_text(text, self.path, check_command=check_command), False
        loaded = load_foreign(self.path, check_command=check_command)
        if loaded is not None:
            return loaded, True
        return load(self.path, check_command=check_command), False

    def read_text(self, text: str) -> Reading:
        """See ConfigSource."""
        loaded = load_text(text, self.path, check_command=check_command)
        return self._reading(loaded, is_foreign=False)

    def read_document(self, document: Document) -> Reading:
        """See ConfigSource."""
        loaded = load_document(document, check_command=check_command)
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


def located(path: Path, reading: Reading, issues: Sequence[Issue]) -> tuple[Problem, ...]:
    """Say where in the file these are that ``reading`` was made of; blocks. Raises ConfigError.

    For what only the user of a config can judge, or wants to know.
    """
    foreign = load_foreign(path, check_command=check_command) if reading.is_foreign else None
    document = Document(reading.text or "", path) if foreign is None else foreign.document
    return tuple(map(document.problem, issues))


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
