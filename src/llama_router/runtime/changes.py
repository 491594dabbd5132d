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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from llama_router.catalog.model import CatalogModel
from llama_router.config import files
from llama_router.config.edit import EDITS_MAX_COUNT, ChangedError, Edit, edited, etag, write
from llama_router.config.macros import without_macros
from llama_router.config.problems import ConfigError, Problem
from llama_router.config.resolve import Resolved, resolve
from llama_router.config.schema import Config, ModelEntry, RouterSettings, merged
from llama_router.proxy.errors import ShuttingDownError
from llama_router.runtime.applying import Applier, Step
from llama_router.runtime.config_file import ConfigSource, ReadError, Reading, read_aside
from llama_router.runtime.difference import restart_needed
from llama_router.runtime.feed import ConfigRead, FeedEvent, ModelsOnDisk
from llama_router.runtime.importing import pick
from llama_router.runtime.overrides import OverrideError, Overrides, entry_index, kept
from llama_router.runtime.roster import Roster, build_roster
from llama_router.runtime.stock import places, unseen

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
    """Models on disk that have come, gone or changed, by their ids."""

    new_models: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class NotEditableError(Exception):
    """There is no file of the router's own form that could be changed."""


class EditConflictError(Exception):
    """The file is not what it was when the edit was made; ``etag`` is what it is now."""

    def __init__(self, now: str) -> None:
        super().__init__("the config file has been changed meanwhile; read it again")
        self.etag = now


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the models of a folder, by their ids; ``skipped`` were there already."""

    added: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# What is told to who has asked, and no fault.
_REFUSALS = (ConfigError, ReadError, OverrideError, EditConflictError, NotEditableError)


class Finds(Protocol):
    """What a look at the disk has found."""

    @property
    def models(self) -> Sequence[CatalogModel]:
        """All models, sorted by id."""

    @property
    def problem(self) -> str:
        """Why there was no look, and these are those of the last one; empty when there was."""


class Shelves(Protocol):
    """Whoever looks at the disk."""

    async def take(self, config: Config) -> Finds:
        """Find the models in the places of this config."""


class Changes:
    """What the router is run by, and every way to something else. Made once it runs.

    ``stale`` says why what runs is not what the file says; empty when it is. What has begun goes on
    to its end when who asked for it leaves: nothing is ever applied in part. ``publish`` gets what
    is worth telling.
    """

    def __init__(
        self,
        *,
        source: ConfigSource,
        reading: Reading,
        finds: Finds,
        stock: Shelves,
        applier: Applier,
        roster: Roster,
        folders: Shelves | None = None,
        overrides: Overrides | None = None,
        publish: Callable[[FeedEvent], object] = lambda _event: None,
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
        # Entries of imported folders, where there is no file to put them into.
        self._imported: tuple[ModelEntry, ...] = ()
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
                reading = await asyncio.to_thread(read_aside, self._source)
                report = await self._follow(reading=reading, finds=None)
            except Exception as error:
                self._refused(why, error)
                raise
            self._followed(why, report)
            for warning in reading.warnings:
                _log.warning("%s", warning)
            _log.info("reloaded; %s", report.in_words())
            return report

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
        path, text = self._source.path, self._reading.text
        if path is None or self.stale:
            return False
        try:
            content = await asyncio.to_thread(files.read_bytes, path)
        except files.FileError:
            return False
        return content.decode("utf-8-sig", "replace") == text

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
            if self._is_nothing_new(finds):
                return RescanReport()
            other = (await self._step(self._reading, finds, self._overrides)).other
        report = RescanReport(new_models=other.added, removed=other.removed, changed=other.changed)
        if report != RescanReport():
            new, gone, changed = (len(ids) for ids in msgspec.structs.astuple(report))
            _log.info("models on disk: %d new, %d gone, %d changed", new, gone, changed)
            event = ModelsOnDisk(
                time_s=time.time(), model="", added=new, removed=gone, changed=changed
            )
            self._publish(event)
        return report

    def _is_nothing_new(self, finds: Finds) -> bool:
        """Tell whether a scan has found what the last one has, to the object.

        Files of manual models are nobody's finds and have to be looked at.
        """
        known = self._finds.models
        return (
            len(known) == len(finds.models)
            and all(map(operator.is_, known, finds.models))
            and not any(one.path and one.state == "manual" for one in self.config.models)
        )

    async def _follow(self, *, reading: Reading, finds: Finds | None) -> ReloadReport:
        """Follow another reading of the config."""
        other = (await self._step(reading, finds, self._overrides)).other
        return ReloadReport(
            changed=other.changed,
            added=other.added,
            removed=other.removed,
            restart_needed=restart_needed(self._started, reading.config),
            warnings=(*map(str, reading.warnings), *unseen(self._finds.problem)),
        )

    async def _step(self, reading: Reading, finds: Finds | None, overrides: Overrides) -> Step:
        """Follow these; without ``finds`` the disk is looked at. Under the lock."""
        config = self._merged(reading)
        if finds is None or places(config) != places(self.config):
            finds = await self._stock.take(config)
        new = await asyncio.to_thread(build_roster, config, finds.models, overrides.layers)
        step = await asyncio.to_thread(self._applier.compare, new)
        old: list[Any] = await self._applier.apply(step)
        old += self._reading.config.models
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
        text = await asyncio.to_thread(self._read_text)
        return text, etag(text)

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
        text = await asyncio.to_thread(self._read_text)
        if known_etag is not None and etag(text) != known_etag:
            raise EditConflictError(etag(text))
        reading = await asyncio.to_thread(self._write_edited, text, edits)
        try:
            report = await self._follow(reading=reading, finds=self._finds)
        except Exception as error:
            self._refused("edited", error)
            raise
        self._followed("edited", report)
        _log.info("the config was edited; %s", report.in_words())
        return report

    def _read_text(self) -> str:
        path = self._editable_path()
        try:
            return files.read_bytes(path).decode("utf-8-sig")
        except (files.FileError, UnicodeDecodeError) as error:
            raise ConfigError([Problem(str(path), 0, "", str(error))]) from None

    def _editable_path(self) -> Path:
        path = self._source.path
        if path is None or self._reading.is_foreign:
            raise NotEditableError("this router's config is in no file of its own form")
        return path

    def _write_edited(self, text: str, edits: Sequence[Edit]) -> Reading:
        path = self._editable_path()
        changed = text
        for start in range(0, len(edits), EDITS_MAX_COUNT):
            changed = edited(changed, edits[start : start + EDITS_MAX_COUNT], path)
        reading = self._source.read_text(changed)
        try:
            write(path, text, changed)
        except ChangedError:
            raise EditConflictError(etag(self._read_text())) from None
        return reading

    async def validate(self, text: str) -> tuple[Problem, ...]:
        """Return what is wrong with a text as this router's config; nothing if it can be run."""
        try:
            await asyncio.to_thread(read_aside, self._source, text)
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
            if not picked.entries:
                return ImportReport(skipped=picked.skipped, warnings=picked.warnings)
            if self._source.path is None or self._reading.is_foreign:
                self._imported += tuple(map(ModelEntry.model_validate, picked.entries))
                await self._step(self._reading, self._finds, self._overrides)
            else:
                # Files may be called anything, `${env.NAME}.gguf` too.
                edits = [
                    Edit("set", ("models", f"name={entry['name']}", key), value)
                    for entry in map(without_macros, picked.entries)
                    for key, value in entry.items()
                ]
                await self._edit(edits, None)
        added = tuple(entry["name"] for entry in picked.entries)
        _log.info("%d models of %s were imported", len(added), folder)
        return ImportReport(added=added, skipped=picked.skipped, warnings=picked.warnings)

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
            overrides = self._overrides.changed(model, settings, self.config.templates)
            if keep:
                before = self._overrides
                self._overrides = before.without(model)
                try:
                    names = self._roster[model].found.names
                    edits = kept(self._reading.config, model, names, overrides[model], settings)
                    await self._edit(edits, None)
                except BaseException:
                    self._overrides = before
                    raise
            else:
                await self._step(self._reading, self._finds, overrides)
            return self._resolved(model)

    async def drop_override(self, model: str) -> Resolved:
        """Forget what was set of a model and not kept. Raises OverrideError if that is gone."""
        return await self._whole(self._drop_override(model), f"drop override {model}")

    async def _drop_override(self, model: str) -> Resolved:
        async with self._lock:
            if model not in self._roster:
                raise OverrideError(f"model '{model}' is gone")
            await self._step(self._reading, self._finds, self._overrides.without(model))
            return self._resolved(model)

    @property
    def overrides(self) -> Overrides:
        """What was set and not kept."""
        return self._overrides

    def resolved(self, model: str) -> Resolved:
        """Return how a model is run, and where each setting comes from. Raises KeyError."""
        return self._resolved(model)

    def _resolved(self, model: str) -> Resolved:
        config, found = self.config, self._roster[model].found
        index = entry_index(config, model, found.names)
        entry = None if index is None else config.models[index]
        return resolve(config, entry, self._overrides.layers.get(model))

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
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _let_go(items: list[Any]) -> None:
    """Free objects one by one: all at once no other thread would run for milliseconds."""
    while items:
        items.pop()


def _folder(path: str) -> Path:
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), 0, "", "is not a folder")])
    return folder
