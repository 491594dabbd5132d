"""Takes stock of the models on disk without holding anybody up.

The scan runs in a process of its own (`llama_router.catalog.worker`); a thread takes its answer
apart, a portion at a time. What has not changed since the last scan stays the very same object, so
whoever compares, or lets go of what was replaced, has to do with what changed only.
"""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from llama_router.catalog import wire
from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.header_index import HeaderIndex
from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.runtime.scan_process import ScanError, ScanProcess, StuckError
from llama_router.runtime.silent_folders import SilentFolders

INDEX_FILE_NAME = "headers.index"

_log = logging.getLogger(__name__)

# What a process that was killed needs to end, unless it waits for a disk.
_END_TIMEOUT_S = 1.0
# Whoever waits for the start of a router with thousands of models is told how far it is.
_TELL_INTERVAL_S = 3.0
# Taking a portion apart is followed by a pause of so many times as long, while requests are served.
_PAUSE_SHARE = 1.0
# New models that are worth being kept from the collector.
_FREEZE_COUNT = 500
# What the scan needs of the environment: where the caches are.
_VARIABLES = (
    "LLAMA_CACHE",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_HOME",
    "XDG_CACHE_HOME",
    "LOCALAPPDATA",
)


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan has found, and how that differs from the scan before it.

    ``models`` are all, as `discover` has them; ``added``, ``changed`` and ``removed`` are ids.
    ``problem`` says why there was no scan: then ``models`` are those of the last one. So are those
    below ``silent``, folders that were left out as they do not answer. ``warnings`` say so.
    ``read_count`` files were read, of ``known_count`` everything was known.
    """

    models: tuple[CatalogModel, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str = ""
    silent: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    read_count: int = 0
    known_count: int = 0
    took_s: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether nothing is different from before."""
        return not (self.added or self.changed or self.removed)


def named_files(config: Config) -> tuple[Path, ...]:
    """Return the files that the config says are models, wherever they are."""
    return tuple(map(Path, _named_paths(config)))


def places(config: Config) -> tuple[object, ...]:
    """Return what of a config says where a scan looks."""
    return config.router.models_dirs, tuple(_named_paths(config))


def _named_paths(config: Config) -> dict[str, None]:
    manual = (entry.path for entry in config.models if entry.state == "manual" and entry.path)
    return dict.fromkeys(manual)


class Seen(Protocol):
    """What a look at the disk has found; see Scan."""

    @property
    def models(self) -> Sequence[CatalogModel]:
        """All models, sorted by id."""

    @property
    def problem(self) -> str:
        """Why there was no look, and these are those of the last one; empty when there was."""

    @property
    def silent(self) -> Sequence[Path]:
        """Folders that do not answer: of what is below, these are the models of the last look."""

    @property
    def warnings(self) -> Sequence[str]:
        """What was not looked at, for those who have asked."""


class Stock:
    """Scans, one at a time. ``close`` ends a scan that is under way.

    ``index`` is the file in which headers are remembered; None: nowhere. Without ``has_caches``
    only the config's folders are looked at. Folders that are ``silent`` are left out, and those
    in which a scan gets stuck become so.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        home: Path,
        index: Path | None,
        has_caches: bool = True,
        silent: SilentFolders | None = None,
    ) -> None:
        self._env = {name: env[name] for name in _VARIABLES if name in env}
        self._home = home
        self._index = index
        self._has_caches = has_caches
        self._models: dict[str, CatalogModel] = {}
        self._lock = asyncio.Lock()
        self.silent = SilentFolders() if silent is None else silent
        self._process: ScanProcess | None = None
        # What the last scan had to say of the disk, each once as long as it is so.
        self._noted: frozenset[str] = frozenset()
        self._closed = threading.Event()
        # Who waited for the scan under way has left.
        self._left = threading.Event()

    def sources(self, config: Config) -> Sources:
        """Give the places that are looked at. Takes its time with thousands of entries."""
        return self._sources(config, named_files(config))

    def folders(self, config: Config) -> tuple[Path, ...]:
        """Give those of them in which any file may be a model."""
        return self._sources(config, ()).folders

    def _sources(self, config: Config, named: tuple[Path, ...]) -> Sources:
        folders = tuple(Path(folder) for folder in config.router.models_dirs)
        if self._has_caches:
            return Sources(folders, self._env, self._home, files=named)
        # A home without caches in it.
        nowhere = self._home / ".nowhere"
        return Sources(folders, {}, nowhere, files=named)

    async def take(self, config: Config, *, is_urgent: bool = False) -> Scan:
        """Scan and return what there is; ``is_urgent`` while nobody is served yet.

        Does not raise for what is on disk, or for a scan that fails: see ``problem``.
        """
        async with self._lock:
            self._left.clear()
            work = asyncio.create_task(
                asyncio.to_thread(self.take_now, config, is_urgent=is_urgent), name="take stock"
            )
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                self._left.set()
                self._kill()
                await asyncio.wait((work,))
                raise

    def take_now(self, config: Config, *, is_urgent: bool = True) -> Scan:
        """Do as ``take``, on the calling thread; one at a time."""
        begin = time.monotonic()
        sources = self.sources(config)
        while True:
            left_out = self.silent.folders
            silent = _concerned(sources, left_out)
            try:
                scan = self._scan(sources, left_out, is_urgent=is_urgent)
            except _NewlySilentError:
                continue
            except ScanError as error:
                if not (self._closed.is_set() or self._left.is_set()):
                    _log.error("the models on disk could not be looked at: %s", error)
                models = tuple(self._models.values())
                text = "the models are those of before, for the disk was not looked at"
                warnings = (f"{text}: {error}",)
                return Scan(models=models, problem=str(error), silent=silent, warnings=warnings)
            self.silent.all_else_answered()
            return msgspec.structs.replace(
                scan,
                silent=silent,
                warnings=tuple(_in_words(folder, scan.models) for folder in silent),
                took_s=time.monotonic() - begin,
            )

    def _scan(self, sources: Sources, left_out: tuple[Path, ...], *, is_urgent: bool) -> Scan:
        """Scan but for these folders. Raises ScanError, _NewlySilentError."""
        told_at = time.monotonic()
        kept = {name: one for name, one in self._models.items() if _is_kept(one, sources, left_out)}
        models: dict[str, CatalogModel] = {}
        changes = _Changes(self._models)
        counts = (0, 0)
        for answer in self._answers(_request(sources, self._index, left_out, kept)):
            if isinstance(answer, wire.Done):
                counts = (answer.read_count, answer.known_count)
                for note in answer.notes:
                    if note not in self._noted:
                        _log.warning("%s", note)
                self._noted = frozenset(answer.notes)
            elif isinstance(answer, wire.Portion):
                portion_begin = time.monotonic()
                for model in answer.models:
                    models[model.id] = changes.settled(model)
                changes.keep_from_collections()
                if not is_urgent:
                    time.sleep((time.monotonic() - portion_begin) * _PAUSE_SHARE)
            elif is_urgent and time.monotonic() - told_at >= _TELL_INTERVAL_S:
                told_at = time.monotonic()
                where = f", now in {answer.folder}" if answer.folder else ""
                _log.info("looking for models: %d files so far%s", answer.file_count, where)
        if kept:
            models = dict(sorted((models | kept).items(), key=_place))
        removed = tuple(name for name in self._models if name not in models)
        self._models = models
        return Scan(
            models=tuple(models.values()),
            added=tuple(changes.added),
            changed=tuple(changes.changed),
            removed=removed,
            read_count=counts[0],
            known_count=counts[1],
        )

    def close(self) -> None:
        """End a scan that is under way, and start none any more."""
        self._closed.set()
        self._kill()
        self.silent.close()

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.give_up()

    def _answers(self, request: wire.Request) -> Iterator[wire.Progress | wire.Portion | wire.Done]:
        """Have the scan done and give its answer as it comes.

        Raises ScanError, _NewlySilentError.
        """
        if self._closed.is_set():
            raise ScanError("the router ends")
        if self._left.is_set():
            raise ScanError("nobody waits for it any more")
        if self.silent.is_full:
            raise ScanError("too many processes wait for disks that do not answer")
        try:
            process = ScanProcess(request)
        except OSError as error:
            if request.left_out:
                # Which only a process may touch.
                raise ScanError(f"there is no process for it: {error}") from None
            _log.warning("no process for looking at models, doing it here: %s", error)
            yield from _answers_from_here(request)
            return
        self._process = process
        if self._closed.is_set() or self._left.is_set():
            process.give_up()  # since the look above
        try:
            yield from process.answers()
        except StuckError as error:
            process.give_up()
            if error.folder is None or not self.silent.add(error.folder, process):
                raise
            _log.error(
                "%s does not answer: it is left out until it does; the models known of it stay"
                " listed",
                error.folder,
            )
            raise _NewlySilentError from None
        finally:
            self._process = None
            process.give_up()
            if not process.has_ended(_END_TIMEOUT_S):
                self.silent.leave(process)


class _NewlySilentError(Exception):
    """A folder does not answer; without it there may be a scan."""


class _Changes:
    """Compares with the models of before."""

    def __init__(self, before: Mapping[str, CatalogModel]) -> None:
        self._before = before
        self.added: list[str] = []
        self.changed: list[str] = []
        self._frozen_count = 0

    def keep_from_collections(self) -> None:
        """Spare the collector thousands of objects that stay: it would stop all for 20 ms."""
        count = len(self.added) + len(self.changed)
        if count - self._frozen_count >= _FREEZE_COUNT:
            self._frozen_count = count
            gc.freeze()

    def settled(self, model: CatalogModel) -> CatalogModel:
        """Give the same object as before if nothing has changed."""
        before = self._before.get(model.id)
        if before is None:
            self.added.append(model.id)
        elif before != model:
            self.changed.append(model.id)
        else:
            return before
        return model


def _request(
    sources: Sources,
    index: Path | None,
    left_out: tuple[Path, ...],
    kept: Mapping[str, CatalogModel],
) -> wire.Request:
    return wire.Request(
        models_dirs=sources.models_dirs,
        env=dict(sources.env),
        home=sources.home,
        platform=sources.platform,
        files=sources.files,
        index=index,
        left_out=left_out,
        taken=tuple(kept),
    )


def _concerned(sources: Sources, silent: Sequence[Path]) -> tuple[Path, ...]:
    """Return those of the silent folders, each with all below, that these sources look into."""
    silent = [one for one in silent if not any(other in one.parents for other in silent)]
    places = (*sources.folders, *(file.parent for file in sources.files))
    return tuple(
        folder
        for folder in silent
        if any(_is_below(folder, (place,)) or _is_below(place, (folder,)) for place in places)
    )


def _in_words(silent: Path, models: Sequence[CatalogModel]) -> str:
    count = sum(_is_below(model.path, (silent,)) for model in models)
    kept = f"models known of it stay listed: {count}" if count else "no model of it is known"
    return f"{silent} does not answer and is left out until it does; {kept}"


def _is_kept(model: CatalogModel, sources: Sources, silent: tuple[Path, ...]) -> bool:
    """Tell whether a known model is still one of what is looked at, could it be looked at."""
    if not _is_below(model.path, silent):
        return False
    if model.source is ModelSource.CONFIG:
        return model.path in sources.files
    return _is_below(model.path, sources.folders)


def _is_below(path: Path | None, folders: Sequence[Path]) -> bool:
    return path is not None and any(map(path.is_relative_to, folders))


def _place(item: tuple[str, CatalogModel]) -> tuple[bool, str]:
    """Order models as `discover` does."""
    return item[1].source is ModelSource.CONFIG, item[0]


def _answers_from_here(request: wire.Request) -> Iterator[wire.Portion | wire.Done]:
    index = HeaderIndex(request.index)
    models = discover(wire.sources(request), index)
    yield from wire.portions(models)
    index.save()
    yield wire.Done(len(models), index.read_count, index.known_count)
