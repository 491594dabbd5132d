"""Everything that changes what a running router serves.

Its file read anew, models that come and go, settings set while it runs. One change at a time. What
takes long (reading, resolving, comparing) is done aside, on what the router has; only a whole and
valid result is applied. What fails leaves everything as it was.
"""

import asyncio
import contextlib
import logging
import operator
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from llama_router.config.edit import Edit
from llama_router.config.problems import ConfigError, Issue, Problem, format_keys
from llama_router.config.resolve import Resolved, resolve
from llama_router.config.schema import Config, ModelEntry, ModelSettings, RouterSettings, merged
from llama_router.proxy.errors import ShuttingDownError
from llama_router.runtime.applying import Applier, Step
from llama_router.runtime.config_aside import ConfigAside
from llama_router.runtime.config_editing import (
    EditConflictError,
    NotEditableError,
    edits_for,
    says,
    text_of,
    write_edited,
)
from llama_router.runtime.config_file import ConfigSource, ReadError, Reading
from llama_router.runtime.difference import restart_needed
from llama_router.runtime.feed import ConfigRead, FeedEvent, ModelsOnDisk
from llama_router.runtime.importing import pick
from llama_router.runtime.overrides import OverrideError, Overrides, entry_index, kept
from llama_router.runtime.roster import Roster, build_roster
from llama_router.runtime.stock import Seen, places

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload has changed: ids of models, and settings that hold after a restart only."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Say it in one line."""
        counts = (("changed", self.changed), ("added", self.added), ("removed", self.removed))
        parts = [f"{len(models)} {what}" for what, models in counts if models]
        text = f"models: {', '.join(parts) or 'as they were'}"
        if self.restart_needed:
            text += f"; after a restart only: {', '.join(self.restart_needed)}"
        return text


class RescanReport(msgspec.Struct, frozen=True, kw_only=True):
    """Models on disk that have come, gone or changed, by their ids; what was not looked at."""

    new_models: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the models of a folder, by their ids; ``skipped`` were there already."""

    added: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# What is told to who has asked, and no fault.
_REFUSALS = (ConfigError, ReadError, OverrideError, EditConflictError, NotEditableError)


class Shelves(Protocol):
    """Whoever looks at the disk."""

    async def take(self, config: Config) -> Seen:
        """Find the models in the places of this config."""


class Changes:
    """What the router is run by, and every way to something else. Made once it runs.

    ``stale`` says why what runs is not what the file says; empty when it is. What has begun goes on
    to its end when who asked for it leaves: nothing is ever applied in part. ``publish`` gets what
    is worth telling. ``reread`` is called, aside, before a config is followed that was read anew:
    it reads what stands in files of its own and returns doubts, or raises ReadError.
    """

    def __init__(
        self,
        *,
        source: ConfigSource,
        reading: Reading,
        finds: Seen,
        stock: Shelves,
        applier: Applier,
        roster: Roster,
        folders: Shelves | None = None,
        overrides: Overrides | None = None,
        publish: Callable[[FeedEvent], object] = lambda _event: None,
        reread: Callable[[Config], Sequence[str]] = lambda _config: (),
    ) -> None:
        self._source = source
        self._reading = reading
        self._started = reading.config
        self._finds = finds
        self._stock = stock
        self._folders = folders or stock
        self._applier = applier
        self._roster = roster
        self._overrides = overrides or Overrides()
        self._publish = publish
        self._reread = reread
        # Entries of imported folders, where there is no file to put them into.
        self._imported: tuple[ModelEntry, ...] = ()
        self._aside = ConfigAside()
        self._lock = asyncio.Lock()
        # A reload that has not begun yet: whoever wants one meanwhile wants this one.
        self._next: asyncio.Task[ReloadReport] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self.stale = ""

    @property
    def source(self) -> ConfigSource:
        """Where the config is read from."""
        return self._source

    @property
    def config(self) -> Config:
        """What holds now."""
        return self._roster.config

    # --- reload and rescan

    async def reload(self, why: str) -> ReloadReport:
        """Read the config anew and follow it.

        Raises ConfigError, or ReadError, and leaves everything as it is.
        """
        if self._next is None:
            self._next = self._start(self._reload(why), "reload")
        return await asyncio.shield(self._next)

    def reload_soon(self, why: str) -> None:
        """Do the same for nobody who waits for it; the log says what came of it."""
        if not self._is_over:
            self._start(self._reload_quietly(why), "reload")

    async def _reload_quietly(self, why: str) -> None:
        with contextlib.suppress(ConfigError, ReadError, ShuttingDownError):
            await self.reload(why)

    async def _reload(self, why: str) -> ReloadReport:
        async with self._lock:
            self._next = None
            _log.info("reload: %s", why)
            try:
                reading = await asyncio.to_thread(self._aside.read, self._source)
                doubts = await asyncio.to_thread(self._reread, reading.config)
                report = await self._follow(reading=reading, finds=None)
            except Exception as error:
                self._refused(why, error)
                raise
            self._followed(why, report)
            await asyncio.to_thread(_warn, (*reading.warnings, *doubts))
            _log.info("reloaded; %s", report.in_words())
            return msgspec.structs.replace(report, warnings=(*report.warnings, *doubts))

    def _refused(self, why: str, error: Exception) -> None:
        is_known = isinstance(error, ConfigError | ReadError)
        self.stale = str(error) if is_known else f"a fault of the router: {type(error).__name__}"
        _log.error("the config is not reloaded, what ran before goes on: %s", self.stale)
        self._publish(ConfigRead(time_s=time.time(), model="", why=why, error=self.stale))

    def _followed(self, why: str, report: ReloadReport) -> None:
        self.stale = ""
        event = ConfigRead(
            time_s=time.time(),
            model="",
            why=why,
            changed=len(report.changed),
            added=len(report.added),
            removed=len(report.removed),
            restart_needed=report.restart_needed,
        )
        self._publish(event)

    async def is_read_already(self) -> bool:
        """Tell whether the file says what was read last: whoever has changed it was the router."""
        path = self._source.path
        # What is under way may be what has written it.
        async with self._lock:
            if path is None or self.stale:
                return False
            return await asyncio.to_thread(says, path, self._reading.text)

    async def rescan(self, begun: Callable[[], object] | None = None) -> RescanReport:
        """Look at the disk anew: new models come, those whose files are gone go.

        ``begun`` is called when it is this one's turn. Raises ReadError when nothing can be seen.
        """
        return await self._whole(self._rescan(begun), "rescan")

    async def _rescan(self, begun: Callable[[], object] | None) -> RescanReport:
        async with self._lock:
            if begun is not None:
                begun()
            finds = await self._stock.take(self._merged())
            if finds.problem:
                raise ReadError(f"the models on disk could not be looked at: {finds.problem}")
            if await asyncio.to_thread(self._is_nothing_new, finds):
                self._finds = finds
                return RescanReport(warnings=tuple(finds.warnings))
            other = (await self._step(self._reading, finds, self._overrides)).other
        report = RescanReport(
            new_models=other.added,
            removed=other.removed,
            changed=other.changed,
            warnings=tuple(finds.warnings),
        )
        new, gone, changed = map(len, (other.added, other.removed, other.changed))
        if new or gone or changed:
            _log.info("models on disk: %d new, %d gone, %d changed", new, gone, changed)
            event = ModelsOnDisk(
                time_s=time.time(), model="", added=new, removed=gone, changed=changed
            )
            self._publish(event)
        return report

    def _is_nothing_new(self, finds: Seen) -> bool:
        """Tell whether a scan has found what the last one has, to the object.

        Files of manual models are nobody's finds and have to be looked at.
        """
        known = self._finds.models
        return (
            len(known) == len(finds.models)
            and all(map(operator.is_, known, finds.models))
            and not any(one.path and one.state == "manual" for one in self.config.models)
        )

    async def _follow(self, *, reading: Reading, finds: Seen | None) -> ReloadReport:
        """Follow another reading of the config."""
        other = (await self._step(reading, finds, self._overrides)).other
        return ReloadReport(
            changed=other.changed,
            added=other.added,
            removed=other.removed,
            restart_needed=restart_needed(self._started, reading.config),
            warnings=(*map(str, reading.warnings), *self._finds.warnings),
        )

    async def _step(self, reading: Reading, finds: Seen | None, overrides: Overrides) -> Step:
        """Follow these; without ``finds`` the disk is looked at. Under the lock."""
        config = self._merged(reading)
        if finds is None or await asyncio.to_thread(_are_elsewhere, self.config, config):
            finds = await self._stock.take(config)
        new = await asyncio.to_thread(
            build_roster, config, finds.models, overrides.layers, finds.silent
        )
        step = await asyncio.to_thread(self._applier.compare, new)
        old = await self._applier.apply(step)
        old += (self._reading.config.models, self._finds.models)
        self._reading, self._finds, self._overrides = reading, finds, overrides
        await asyncio.to_thread(_let_go, old)
        return step

    def _merged(self, reading: Reading | None = None) -> Config:
        """Return what was read, with what was imported."""
        config = (reading or self._reading).config
        if not self._imported:
            return config
        return merged(config, {"models": (*config.models, *self._imported)})

    # --- the file

    async def config_text(self) -> tuple[str, str]:
        """Return the file as it is now, and its etag. Raises NotEditableError or ConfigError."""
        return await asyncio.to_thread(text_of, self._source, self._reading)

    async def without_secrets(self, text: str) -> str:
        """Return a text of the file as it may be shown. Raises ConfigError or ReadError."""
        path = self._source.path or Path()
        return await asyncio.to_thread(self._aside.redact, text, path)

    async def edit_config(
        self, edits: Sequence[Edit], known_etag: str | None
    ) -> tuple[str, ReloadReport]:
        """Change the file and follow it; return what it is called then.

        ``known_etag`` names the text that the edits were made for; None: whatever it is. Raises
        EditConflictError, NotEditableError, ConfigError: nothing is changed then.
        """
        return await self._whole(self._edit_config(edits, known_etag), "edit config")

    async def _edit_config(
        self, edits: Sequence[Edit], known_etag: str | None
    ) -> tuple[str, ReloadReport]:
        async with self._lock:
            report = await self._edit(edits, known_etag)
            return self._reading.etag, report

    async def _edit(self, edits: Sequence[Edit], known_etag: str | None) -> ReloadReport:
        reading = await asyncio.to_thread(
            write_edited, self._aside, self._source, self._reading, edits, known_etag
        )
        try:
            report = await self._follow(reading=reading, finds=self._finds)
        except Exception as error:
            self._refused("edited", error)
            raise
        self._followed("edited", report)
        _log.info("the config was edited; %s", report.in_words())
        return report

    async def located(self, issues: Sequence[Issue]) -> tuple[Problem, ...]:
        """Say where in the file these are. Raises ConfigError or ReadError."""
        path = self._source.path
        if path is None or not issues:
            return tuple(Problem("", 0, format_keys(one.keys), one.message) for one in issues)
        return await asyncio.to_thread(self._aside.locate, path, self._reading, issues)

    async def validate(self, text: str) -> tuple[Problem, ...]:
        """Return what is wrong with a text as this router's config; nothing if it can be run."""
        try:
            await asyncio.to_thread(self._aside.read, self._source, text)
        except ConfigError as error:
            return error.problems
        return ()

    async def import_dir(self, path: str, state: str = "manual") -> ImportReport:
        """Add an entry for each model below a folder, with its projector; again: for new ones.

        Into the file, or where there is none for as long as the router runs. Raises ConfigError
        for a folder that is none.
        """
        folder = await asyncio.to_thread(_folder, path)
        return await self._whole(self._import(folder, state), "import")

    async def _import(self, folder: Path, state: str) -> ImportReport:
        async with self._lock:
            router = RouterSettings(models_dirs=(str(folder),))
            found = await self._folders.take(Config(router=router))
            if found.problem:
                raise ReadError(f"the folder could not be looked at: {found.problem}")
            picked = await asyncio.to_thread(pick, self._merged(), found.models, state)
            warnings = (*picked.warnings, *found.warnings)
            if not picked.entries:
                return ImportReport(skipped=picked.skipped, warnings=warnings)
            if self._source.path is None or self._reading.is_foreign:
                self._imported += await asyncio.to_thread(_made, picked.entries)
                await self._step(self._reading, self._finds, self._overrides)
            else:
                edits = await asyncio.to_thread(edits_for, picked.entries)
                await self._edit(edits, None)
        added = tuple(entry["name"] for entry in picked.entries)
        _log.info("%d models of %s were imported", len(added), folder)
        return ImportReport(added=added, skipped=picked.skipped, warnings=warnings)

    # --- settings set while running

    async def override(self, model: str, settings: Mapping[str, Any], *, keep: bool) -> Resolved:
        """Set settings of a model, None taking one back; ``keep``: in the file, for good.

        Raises OverrideError; with ``keep`` as ``edit_config`` does.
        """
        return await self._whole(self._override(model, settings, keep=keep), f"override {model}")

    async def _override(self, model: str, settings: Mapping[str, Any], *, keep: bool) -> Resolved:
        async with self._lock:
            if model not in self._roster:
                raise OverrideError(f"model '{model}' is gone")
            overrides = await asyncio.to_thread(
                self._overrides.changed, model, settings, self.config.templates
            )
            if keep:
                before = self._overrides
                self._overrides = before.without(model)
                try:
                    names = self._roster[model].found.names
                    edits = await asyncio.to_thread(
                        kept, self._reading.config, model, names, overrides[model], settings
                    )
                    await self._edit(edits, None)
                except BaseException:
                    self._overrides = before
                    raise
            else:
                await self._step(self._reading, self._finds, overrides)
            return await self.resolved(model)

    async def drop_override(self, model: str) -> Resolved:
        """Forget what was set of a model and not kept. Raises OverrideError if that is gone."""
        return await self._whole(self._drop_override(model), f"drop override {model}")

    async def _drop_override(self, model: str) -> Resolved:
        async with self._lock:
            if model not in self._roster:
                raise OverrideError(f"model '{model}' is gone")
            await self._step(self._reading, self._finds, self._overrides.without(model))
            return await self.resolved(model)

    @property
    def overrides(self) -> Overrides:
        """What was set and not kept."""
        return self._overrides

    async def resolved(self, model: str) -> Resolved:
        """Return how a model is run, and where each setting comes from. Raises KeyError."""
        names, override = self._roster[model].found.names, self._overrides.layers.get(model)
        return await asyncio.to_thread(_resolved, self.config, model, names, override)

    async def _whole(self, work: Coroutine[Any, Any, _T], name: str) -> _T:
        """Do something to its end, whoever leaves meanwhile."""
        return await asyncio.shield(self._start(work, name))

    def _start(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        if self._is_over:
            work.close()
            raise ShuttingDownError("The router is shutting down")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, _REFUSALS):
            _log.error("fault in '%s'", task.get_name(), exc_info=error)

    def stop(self) -> None:
        """Begin nothing any more: whoever wants a change gets a ShuttingDownError."""
        self._is_over = True

    async def close(self) -> None:
        """Give up what is under way."""
        self.stop()
        self._aside.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _resolved(
    config: Config, model: str, names: tuple[str, ...], override: ModelSettings | None
) -> Resolved:
    index = entry_index(config, model, names)
    return resolve(config, None if index is None else config.models[index], override)


def _warn(problems: Sequence[Problem | str]) -> None:
    for problem in problems:
        _log.warning("%s", problem)


def _made(entries: Sequence[Mapping[str, Any]]) -> tuple[ModelEntry, ...]:
    return tuple(map(ModelEntry.model_validate, entries))


def _are_elsewhere(old: Config, new: Config) -> bool:
    return old is not new and places(old) != places(new)


def _let_go(groups: list[Collection[object]]) -> None:
    """Free objects one by one: all at once no other thread would run for milliseconds."""
    while groups:
        items = list(groups.pop())
        while items:
            items.pop()


def _folder(path: str) -> Path:
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), 0, "", "is not a folder")])
    return folder
