"""Reading the config: a file in, settings or every fault of it out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_router.config import files
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
    rewrite: bool = True,
) -> LoadedConfig:
    """Read the file, which must exist.

    ``check_command`` raises ValueError for a command that could never run. Early forms are
    rewritten in the file if ``rewrite`` allows; the rewritten text is loaded itself before it gets
    there. ``~/`` means ``home``; other relative paths start at the file's folder.
    Raises ConfigError with every fault of the file. Takes milliseconds up to seconds for a large
    file: not for an event loop.
    """
    try:
        content = files.read_bytes(path)
    except files.FileError as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from error
    original = Document.from_bytes(content, path)
    loaded, issues = _check(original, check_command, home or Path.home())
    if not issues:
        return loaded
    warnings = sorted(map(original.problem, issues), key=lambda problem: problem.line)
    if rewrite:
        text = loaded.document.dump()
        rewritten = Document(text, path)
        loaded, again = _check(rewritten, check_command, home or Path.home())
        if again:
            raise AssertionError(f"a migrated config still needs migration: {again}")
        warnings += _write_back(path, content, text.encode())
    return LoadedConfig(loaded.config, path, loaded.document, tuple(warnings))


def _check(
    document: Document, check_command: CommandCheck | None, home: Path
) -> tuple[LoadedConfig, list[Issue]]:
    """Migrate the document in memory and validate it; give what was migrated."""
    migrated = migrate(document.data)
    content, issues = document.plain()
    config, more = validate(content, check_command)
    # A value without a place in any config is left out of the content: what the schema then
    # says of its absence would be a second message about one fault.
    known = {issue.keys for issue in issues}
    issues += [issue for issue in more if issue.keys not in known]
    if config is None or issues:
        raise ConfigError(document.problem(issue) for issue in issues)
    base = document.path.absolute().parent
    return LoadedConfig(_with_whole_paths(config, base, home), document.path, document), migrated


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
