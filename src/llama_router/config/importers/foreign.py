"""Files of other programs, loaded as if they were configs of ours."""

import copy
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from llama_router.config import files
from llama_router.config.document import Document
from llama_router.config.fields import CommandCheck
from llama_router.config.importers import llama_server_ini, llama_swap, lm_studio, modelfile
from llama_router.config.importers.llama_swap_keys import OWN_TOP_LEVEL
from llama_router.config.importers.ollama_store import store_folder
from llama_router.config.importers.report import Fate, Note, Report
from llama_router.config.importers.source import Native, Places, Source, plain_with_nulls
from llama_router.config.load import LoadedConfig, load
from llama_router.config.problems import ConfigError, Issue, Keys, Problem
from llama_router.config.schema import Config
from llama_router.config.validate import validate

# What `llama-router import` calls them.
_COMMANDS = {llama_swap.FORM: "llama-swap", llama_server_ini.FORM: "llama-server"}
_UNKNOWN_SHOWN_COUNT = 5
_LOST_SHOWN_COUNT = 3
_INI_SUFFIX = ".ini"
_JSON_SUFFIX = ".json"
# Enough to tell whether a file is worth parsing: ours may be long.
_LLAMA_SWAP_KEY = re.compile(
    rf"""^["']?(?:{"|".join(sorted(OWN_TOP_LEVEL))})["']?[ \t]*:""", re.MULTILINE
)
_MODELS_BY_NAME = re.compile(
    r"""^["']?models["']?[ \t]*:[ \t]*(?:[&{]|(?:\#.*)?(?:\n[ \t]*(?:\#.*)?)*\n[ \t]+[^-\s#])""",
    re.MULTILINE,
)
_JSON_MODELS_BY_NAME = re.compile(r'"models"\s*:\s*\{')


@dataclass(frozen=True, slots=True)
class Foreign:
    """A file of another program: what it means in our words, and what became of its keys.

    ``config`` is what runs, with macros and variables put in.
    """

    native: Native
    report: Report
    config: Config
    document: Document


class ForeignDocument(Document):
    """Another program's file in the place of ours: faults of our keys are found at its own."""

    def __init__(self, text: str, places: Places, native: Native) -> None:
        self._places = places
        self._native = native
        super().__init__(text, places.path)

    def _parse(self) -> CommentedMap:
        return CommentedMap(self._native.content)

    def plain(self) -> tuple[dict[str, Any], list[Issue]]:
        """Give what the file means in our words, in which nothing is out of place."""
        return copy.deepcopy(self._native.content), []

    def place_of(self, keys: Keys) -> tuple[int, int]:
        """Give line and column of what a key of ours comes from."""
        return self._places.place_of(self._native.origin_of(keys))

    def problem(self, issue: Issue) -> Problem:
        """Look up where in the file the reason for an issue is."""
        return self._places.problem(Issue(self._native.origin_of(issue.keys), issue.message))


def load_any(
    path: Path,
    *,
    check_command: CommandCheck | None = None,
    env: Mapping[str, str] | None = None,
    rewrite: bool = True,
) -> LoadedConfig:
    """Load a config of ours, as ``config.load.load``, or one that runs as it is.

    Raises ConfigError.
    """
    loaded = load_foreign(path, check_command=check_command, env=env)
    if loaded is not None:
        return loaded
    return load(path, check_command=check_command, env=env, rewrite=rewrite)


def load_foreign(
    path: Path,
    *,
    check_command: CommandCheck | None = None,
    env: Mapping[str, str] | None = None,
    platform: str = sys.platform,
) -> LoadedConfig | None:
    """Load a config of llama-swap, or a preset file of llama-server, as it is.

    None for a file of any other form, which may be ours. The warnings name what may be misspelt,
    and the command that tells of all that has no effect here. Raises ConfigError with the faults of
    such a file, at their places in it.
    """
    foreign = read_foreign(path, check_command=check_command, env=env, platform=platform)
    if foreign is None:
        return None
    return LoadedConfig(foreign.config, path, foreign.document, tuple(_warnings(path, foreign)))


def _warnings(path: Path, foreign: Foreign) -> Iterator[Problem]:
    """Say little: this is read at each start, and most keys that have no effect need none."""
    report = foreign.report
    for note in _first_of_each(report.of(Fate.UNKNOWN))[:_UNKNOWN_SHOWN_COUNT]:
        yield Problem(str(path), note.line, note.key, f"has no effect here: {note.why}")
    if report.lost:
        count = len(report.lost)
        settings = "1 setting has" if count == 1 else f"{count} settings have"
        kinds = [note.key for note in _first_of_each(report.lost)]
        shown = ", ".join(kinds[:_LOST_SHOWN_COUNT])
        more = ", ..." if len(kinds) > _LOST_SHOWN_COUNT else ""
        command = f"llama-router import {_COMMANDS[report.form]} {shlex.quote(str(path))}"
        message = f"{settings} no effect here ({shown}{more}); {command} says why"
        yield Problem(str(path), 0, "", message)


def _first_of_each(notes: Iterable[Note]) -> list[Note]:
    kinds: dict[str, Note] = {}
    for note in notes:
        kinds.setdefault(note.pattern or note.key, note)
    return list(kinds.values())


def read_foreign(
    path: Path,
    *,
    form: str = "",
    check_command: CommandCheck | None = None,
    env: Mapping[str, str] | None = None,
    platform: str = sys.platform,
) -> Foreign | None:
    """Read and translate a file; None for one that is neither form.

    ``form`` says which it is, in place of its name and content. Raises ConfigError.
    """
    try:
        content = files.read_bytes(path)
    except files.FileError as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from error
    variables = os.environ if env is None else env
    if form == llama_server_ini.FORM or (not form and path.suffix.lower() == _INI_SUFFIX):
        preset = llama_server_ini.Preset.from_bytes(content, path)
        source = Source(preset, llama_server_ini.FORM)
        native = llama_server_ini.translate(source, preset)
        return _checked(preset.text, source, native, check_command, variables)
    if not form and not _may_be_llama_swap(content, path):
        return None
    document = Document.from_bytes(content, path)
    values = plain_with_nulls(document)
    if not form and not llama_swap.is_llama_swap(values):
        return None
    source = Source(document, llama_swap.FORM)
    native = llama_swap.translate(source, values, variables, is_windows=platform == "win32")
    return _checked(document.text, source, native, check_command, variables)


def _may_be_llama_swap(content: bytes, path: Path) -> bool:
    text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    if path.suffix.lower() == _JSON_SUFFIX:
        return _JSON_MODELS_BY_NAME.search(text) is not None
    return any(pattern.search(text) for pattern in (_LLAMA_SWAP_KEY, _MODELS_BY_NAME))


def _checked(
    text: str,
    source: Source,
    native: Native,
    check_command: CommandCheck | None,
    env: Mapping[str, str],
) -> Foreign:
    """Hold what came out against our own schema: what it refuses, it refuses at its origin."""
    document = ForeignDocument(text, source.places, native)
    config, issues = validate(native.content, check_command, env)
    if config is None or issues:
        raise ConfigError(dict.fromkeys(map(document.problem, issues)))
    return Foreign(native, source.report(), config, document)


def checked_modelfile(path: Path, name: str | None, env: Mapping[str, str], home: Path) -> Foreign:
    """Read and translate Ollama's Modelfile. Raises ConfigError."""
    parsed = modelfile.Modelfile.from_file(path)
    source = Source(parsed, modelfile.FORM)
    store = store_folder(env, home)
    native = modelfile.translate(source, parsed, name or modelfile.name_of(path), store=store)
    return _checked("", source, native, None, env)


def checked_lm_studio(folder: Path) -> Foreign:
    """Translate LM Studio's folder of models. Raises ConfigError."""
    source = Source(lm_studio.Folder(folder), lm_studio.FORM)
    native = lm_studio.translate(source, folder.absolute())
    return _checked("", source, native, None, {})
