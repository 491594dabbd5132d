"""Takes stock of the models on disk without holding anybody up.

The scan runs in a process of its own (`llama_router.catalog.worker`); a thread takes its answer
apart, a portion at a time. What has not changed since the last scan stays the very same object, so
whoever compares, or lets go of what was replaced, has to do with what changed only.
"""

import asyncio
import contextlib
import gc
import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from llama_router.catalog import wire
from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.header_index import HeaderIndex
from llama_router.catalog.model import CatalogModel
from llama_router.config.schema import Config
from llama_router.runtime.helper import start_helper

INDEX_FILE_NAME = "headers.index"
_WORKER = "llama_router.catalog.worker"

_log = logging.getLogger(__name__)

# A scan tells four times a second how far it is; a disk that hangs tells nothing.
_SILENCE_MAX_S = 60.0
_LOOK_INTERVAL_S = 1.0
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
    ``problem`` says why there was no scan: then ``models`` are those of the last one.
    ``read_count`` files were read, of ``known_count`` everything was known.
    """

    models: tuple[CatalogModel, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problem: str = ""
    read_count: int = 0
    known_count: int = 0
    took_s: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether nothing is different from before."""
        return not (self.added or self.changed or self.removed)


def named_files(config: Config) -> tuple[Path, ...]:
    """Return the files that the config says are models, wherever they are."""
    paths = (entry.path for entry in config.models if entry.state == "manual" and entry.path)
    return tuple(map(Path, dict.fromkeys(paths)))


def places(config: Config) -> tuple[object, ...]:
    """Return what of a config says where a scan looks."""
    return config.router.models_dirs, named_files(config)


def unseen(problem: str) -> tuple[str, ...]:
    """Return a scan's problem, if there is one, as a warning to those who have asked."""
    text = f"the models are those of before, for the disk was not looked at: {problem}"
    return (text,) if problem else ()


class _ScanError(Exception):
    """There is no answer; the text says why."""


class Stock:
    """Scans, one at a time. ``close`` ends a scan that is under way.

    ``index`` is the file in which headers are remembered; None: nowhere. Without ``has_caches``
    only the config's folders are looked at.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        home: Path,
        index: Path | None,
        has_caches: bool = True,
    ) -> None:
        self._env = {name: env[name] for name in _VARIABLES if name in env}
        self._home = home
        self._index = index
        self._has_caches = has_caches
        self._models: dict[str, CatalogModel] = {}
        self._lock = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()

    def sources(self, config: Config) -> Sources:
        """Give the places that are looked at."""
        folders = tuple(Path(folder) for folder in config.router.models_dirs)
        if self._has_caches:
            return Sources(folders, self._env, self._home, files=named_files(config))
        # A home without caches in it.
        nowhere = folders[0] / ".nowhere" if folders else self._home / ".nowhere"
        return Sources(folders, {}, nowhere, files=named_files(config))

    async def take(self, config: Config, *, is_urgent: bool = False) -> Scan:
        """Scan and return what there is; ``is_urgent`` while nobody is served yet.

        Does not raise for what is on disk, or for a scan that fails: see ``problem``.
        """
        async with self._lock:
            work = asyncio.create_task(
                asyncio.to_thread(self.take_now, config, is_urgent=is_urgent), name="take stock"
            )
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                self._kill()
                await asyncio.wait((work,))
                raise

    def take_now(self, config: Config, *, is_urgent: bool = True) -> Scan:
        """Do as ``take``, on the calling thread; one at a time."""
        begin = told_at = time.monotonic()
        request = _request(self.sources(config), self._index)
        models: dict[str, CatalogModel] = {}
        changes = _Changes(self._models)
        counts = (0, 0)
        try:
            for answer in self._answers(request):
                if isinstance(answer, wire.Done):
                    counts = (answer.read_count, answer.known_count)
                    for note in answer.notes:
                        _log.warning("%s", note)
                elif isinstance(answer, wire.Portion):
                    portion_begin = time.monotonic()
                    for model in answer.models:
                        models[model.id] = changes.settled(model)
                    changes.keep_from_collections()
                    if not is_urgent:
                        time.sleep((time.monotonic() - portion_begin) * _PAUSE_SHARE)
                elif is_urgent and time.monotonic() - told_at >= _TELL_INTERVAL_S:
                    told_at = time.monotonic()
                    _log.info("looking for models: %d files so far", answer.file_count)
        except _ScanError as error:
            if not self._closed.is_set():
                _log.error("the models on disk could not be looked at: %s", error)
            return Scan(models=tuple(self._models.values()), problem=str(error))
        removed = tuple(name for name in self._models if name not in models)
        self._models = models
        return Scan(
            models=tuple(models.values()),
            added=tuple(changes.added),
            changed=tuple(changes.changed),
            removed=removed,
            read_count=counts[0],
            known_count=counts[1],
            took_s=time.monotonic() - begin,
        )

    def close(self) -> None:
        """End a scan that is under way, and start none any more."""
        self._closed.set()
        self._kill()

    def _kill(self) -> None:
        child = self._child
        if child is not None:
            child.kill()

    def _answers(self, request: wire.Request) -> Iterator[wire.Progress | wire.Portion | wire.Done]:
        """Have the scan done and give its answer as it comes. Raises `_ScanError`."""
        if self._closed.is_set():
            raise _ScanError("the router ends")
        try:
            child = start_helper(_WORKER)
        except OSError as error:
            _log.warning("no process for looking at models, doing it here: %s", error)
            yield from _answers_from_here(request)
            return
        self._child = child
        if self._closed.is_set():
            child.kill()  # since the look above
        watchdog = _Watchdog(child)
        try:
            yield from _answers_of(child, request, watchdog)
        finally:
            self._child = None
            watchdog.stop()
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


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


class _Watchdog:
    """Kills a child that says nothing for too long."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        self._heard_at = time.monotonic()
        self._is_over = threading.Event()
        self.has_bitten = False
        self._thread = threading.Thread(target=self._watch, name="scan watchdog", daemon=True)
        self._thread.start()

    def heard(self) -> None:
        self._heard_at = time.monotonic()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_INTERVAL_S):
            if time.monotonic() - self._heard_at > _SILENCE_MAX_S:
                self.has_bitten = True
                self._child.kill()
                return


def _request(sources: Sources, index: Path | None) -> wire.Request:
    return wire.Request(
        models_dirs=sources.models_dirs,
        env=dict(sources.env),
        home=sources.home,
        platform=sources.platform,
        files=sources.files,
        index=index,
    )


def _answers_of(
    child: "subprocess.Popen[bytes]", request: wire.Request, watchdog: _Watchdog
) -> Iterator[wire.Progress | wire.Portion | wire.Done]:
    if child.stdin is None or child.stdout is None:
        raise _ScanError("its process has no pipes")
    try:
        child.stdin.write(wire.frame(request))
        child.stdin.flush()
        while (content := wire.read_frame(child.stdout)) is not None:
            watchdog.heard()
            answer = wire.answer_decoder.decode(content)
            if isinstance(answer, wire.Failed):
                raise _ScanError(answer.problem)
            yield answer
            if isinstance(answer, wire.Done):
                return
    except (OSError, ValueError, wire.WireError, msgspec.MsgspecError) as error:
        raise _ScanError(f"its process gives no answer: {error}") from error
    if watchdog.has_bitten:
        raise _ScanError(f"its process has said nothing for {_SILENCE_MAX_S:g} s")
    raise _ScanError("its process has ended before it was done")


def _answers_from_here(request: wire.Request) -> Iterator[wire.Portion | wire.Done]:
    index = HeaderIndex(request.index)
    models = discover(wire.sources(request), index)
    yield from wire.portions(models)
    index.save()
    yield wire.Done(len(models), index.read_count, index.known_count)
