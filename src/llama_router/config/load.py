"""Reading the config: a file in, settings or every fault of it out."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_router.config import clashes, files
from llama_router.config.document import Document
from llama_router.config.fields import CommandCheck
from llama_router.config.migrate import migrate
from llama_router.config.problems import ConfigError, Issue, Keys, Problem
from llama_router.config.schema import Config, ModelEntry, merged
from llama_router.config.validate import validate


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config that is in order, and the file that it comes from.

    ``document`` is the parsed file, for edits that keep its comments. ``warnings`` are to be shown
    to the operator.
    """

    config: Config
    path: Path
    document: Document = field(repr=False)
    warnings: tuple[Problem, ...] = ()

    def problem(self, keys: Keys, message: str) -> Problem:
        """Say what is wrong with a value that only its user can judge, with its line."""
        return self.document.problem(Issue(keys, message))


def load(
    path: Path,
    *,
    check_command: CommandCheck | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    rewrite: bool = True,
) -> LoadedConfig:
    """Read the file, which must exist.

    ``check_command`` raises ValueError for a command that could never run. Early forms are
    rewritten in the file if ``rewrite`` allows; the rewritten text is loaded itself before it gets
    there. ``~/`` means ``home``; other relative paths start at the file's folder. ``env`` is what
    ``${env.NAME}`` is taken from, this process's own if absent.
    Raises ConfigError with every fault of the file. Takes milliseconds up to seconds for a large
    file: not for an event loop.
    """
    try:
        content = files.read_bytes(path)
    except files.FileError as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from error
    check = _Check(check_command, home or Path.home(), os.environ if env is None else env)
    original = Document.from_bytes(content, path)
    loaded, issues = check(original)
    if not issues:
        return loaded
    warnings = _problems(original, issues)
    if rewrite:
        text = loaded.document.dump()
        loaded, again = check(Document(text, path))
        if again:
            raise AssertionError(f"a migrated config still needs migration: {again}")
        warnings += _write_back(path, content, text.encode())
    return replace(loaded, warnings=(*warnings, *loaded.warnings))


def load_text(
    text: str,
    path: Path,
    *,
    check_command: CommandCheck | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Check a text as what the file at ``path`` could hold; nothing is read or written.

    As ``load`` otherwise. Early forms are warnings. Raises ConfigError.
    """
    if len(text.encode("utf-8", "surrogatepass")) > files.FILE_MAX_BYTES:
        raise ConfigError([Problem(str(path), 0, "", files.TOO_LONG)])
    return load_document(Document(text, path), check_command=check_command, home=home, env=env)


def load_document(
    document: Document,
    *,
    check_command: CommandCheck | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Do the same with a text that is parsed already; early forms are rewritten in ``document``."""
    # Migration changes the document, places and all: what it says is looked up in another.
    check = _Check(check_command, home or Path.home(), os.environ if env is None else env)
    loaded, issues = check(document)
    original = Document(document.text, document.path) if issues else document
    warnings = _problems(original, issues)
    return replace(loaded, warnings=(*warnings, *loaded.warnings))


def _problems(document: Document, issues: Iterable[Issue]) -> list[Problem]:
    problems = map(document.problem, issues)
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


@dataclass(frozen=True, slots=True)
class _Check:
    check_command: CommandCheck | None
    home: Path
    env: Mapping[str, str]

    def __call__(self, document: Document) -> tuple[LoadedConfig, list[Issue]]:
        """Migrate the document in memory and validate it; give what was migrated."""
        migrated = migrate(document.data)
        content, issues = document.plain()
        config, more = validate(content, self.check_command, self.env)
        # A value without a place in any config is left out of the content: what the schema then
        # says of its absence would be a second message about one fault.
        known = {issue.keys for issue in issues}
        issues += [issue for issue in more if issue.keys not in known]
        if config is None or issues:
            raise ConfigError(document.problem(issue) for issue in issues)
        base = document.path.absolute().parent
        config = _with_whole_paths(config, base, self.home)
        doubts = _problems(document, clashes.doubts(config))
        return LoadedConfig(config, document.path, document, tuple(doubts)), migrated


def _write_back(path: Path, expected: bytes, content: bytes) -> list[Problem]:
    """Replace the file unless somebody else has just changed it; failing is not fatal."""
    try:
        if files.read_bytes(path) == expected:
            files.replace(path, content)
            return []
        reason = "it was changed meanwhile"
    except files.FileError as error:
        reason = f"it {error}"
    message = f"the file was not rewritten, the new form is only in use: {reason}"
    return [Problem(str(path), 0, "", message)]


def _with_whole_paths(config: Config, base: Path, home: Path) -> Config:
    def whole(path: str) -> str:
        if path == "~" or path.startswith(("~/", "~\\")):
            return str(home / path[2:])
        return str(base / path) if path else path

    def model(entry: ModelEntry) -> ModelEntry:
        return merged(entry, {"path": whole(entry.path), "mmproj": whole(entry.mmproj)})

    folders = tuple(whole(folder) for folder in config.router.models_dirs)
    return merged(
        config,
        {
            "router": merged(config.router, {"models_dirs": folders}),
            "models": tuple(model(entry) for entry in config.models),
        },
    )


def with_router(config: Config, changes: Mapping[str, Any], source: str) -> Config:
    """Replace settings of ``router`` by others, from the command line say, and check them.

    ``source`` is named in the faults in place of a file. Raises ConfigError.
    """
    section = config.router.model_dump(exclude_unset=True) | dict(changes)
    checked, issues = validate({"router": section})
    if checked is None:
        raise ConfigError(Problem(source, 0, str(issue.keys[1]), issue.message) for issue in issues)
    return merged(config, {"router": checked.router})
