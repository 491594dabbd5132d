"""Downloads as the router knows them: what was asked for, how far it is, and what outlives it."""

import asyncio
import itertools
import logging
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from llama_router.hub.choice import Contents
from llama_router.hub.errors import HubError
from llama_router.hub.layout import replace_file
from llama_router.hub.locks import try_lock
from llama_router.hub.names import Reference, parse_reference
from llama_router.hub.progress import Progress
from llama_router.hub.protocol import (
    Discard,
    Ended,
    Files,
    Header,
    Moved,
    Remove,
    Search,
    SearchHit,
    Settings,
    Start,
    Stop,
)
from llama_router.hub.removal import Removed
from llama_router.runtime.feed import DownloadChanged, FeedEvent
from llama_router.runtime.hub_process import HubProcess

_log = logging.getLogger(__name__)

FILE_NAME = "downloads.json"
# Those that are over are forgotten first.
_DOWNLOADS_MAX_COUNT = 200
_RUNNING_MAX_COUNT = 50
# Two hundred of a thousand files each.
_FILE_MAX_BYTES = 32 * 1024 * 1024
# A process that ends by itself at once will do so again.
_RESTARTS_MAX_COUNT = 3
_STOP_TIMEOUT_S = 30.0

State = Literal["running", "paused", "complete", "failed"]


class UnknownDownloadError(Exception):
    """There is no download of that id."""


class Remembered(msgspec.Struct):
    """What the router's file says of a download."""

    id: str
    repo: str
    tag: str = ""
    file: str = ""
    state: State = "running"
    created_s: float = 0.0
    error_code: str = ""
    error: str = ""
    progress: Progress = Progress()


class Downloads:
    """All downloads. For one loop. ``start``, and ``close`` at the end.

    ``publish`` gets an event for each change; ``on_complete`` is awaited when a model is there,
    with its id.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        state_dir: Path,
        env: Mapping[str, str],
        publish: Callable[[FeedEvent], object],
        on_complete: Callable[[str], Awaitable[object]],
    ) -> None:
        self._path = state_dir / FILE_NAME
        self._publish = publish
        self._on_complete = on_complete
        self._process = HubProcess(
            settings,
            env=env,
            on_message=self._take,
            on_end=self._process_ended,
            is_busy=lambda: bool(self._over),
        )
        self._known: dict[str, Remembered] = {}
        # Set when the process has said that it is over.
        self._over: dict[str, asyncio.Event] = {}
        # What is done to one waits for what is being done to it.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._restarts_count = 0
        # How far each was when the process last ended.
        self._ended_at_bytes: dict[str, int] = {}
        self._saving = asyncio.Lock()
        self._list_lock: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Take up what an earlier router was at, unless the user has paused it.

        One router at a time keeps the list: of another one with the same folder for its state,
        downloads live as long as itself.
        """
        self._list_lock = await asyncio.to_thread(_lock_list, self._path)
        if self._list_lock is None:
            _log.warning("another router keeps %s: downloads begun here are not kept", self._path)
            return
        for one in await asyncio.to_thread(_read, self._path):
            self._known[one.id] = one
        if self._known:
            newest = max(int(one) for one in self._known)
            self._numbers = itertools.count(newest + 1)
        for one in list(self._known.values()):
            if one.state == "running":
                self._spawn(self._run_again(one), f"resume {one.repo}")

    async def close(self) -> None:
        """End the process. What runs is remembered as running: the next router goes on."""
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._process.close()
        if self._list_lock is not None:
            os.close(self._list_lock)
            self._list_lock = None

    def follow(self) -> None:
        """Go by other settings: limits hold at once, the rest for what is begun from now on."""
        if not self._is_closing:
            self._spawn(self._renew(), "settings of the hub")

    async def _renew(self) -> None:
        try:
            await self._process.renew()
        except (HubError, OSError) as error:
            _log.warning("the hub's new settings are not followed: %s", error)

    def all(self) -> list[Remembered]:
        """Return all that are remembered, oldest first."""
        return list(self._known.values())

    def __getitem__(self, number: str) -> Remembered:
        """Return one. Raises UnknownDownloadError."""
        try:
            return self._known[number]
        except KeyError:
            raise UnknownDownloadError(f"there is no download '{number[:100]}'") from None

    async def begin(self, reference_text: str, file: str = "") -> Remembered:
        """Begin to download; one of the same that is not complete is resumed. Raises HubError."""
        reference = parse_reference(reference_text, file)
        await self._process.renew()
        for one in list(self._known.values()):
            if _reference(one) == reference and one.state != "complete":
                try:
                    return await self.resume(one.id)
                except UnknownDownloadError:
                    # It was being cancelled.
                    break
        self._make_room()
        number = str(next(self._numbers))
        made = Remembered(
            number, reference.repo, reference.tag, reference.file, created_s=round(time.time(), 3)
        )
        self._known[number] = made
        await self._run(made)
        await self._save()
        return made

    async def pause(self, number: str) -> Remembered:
        """End it for now. Raises UnknownDownloadError."""
        async with self._turns[self[number].id]:
            one = self[number]
            if one.state == "running":
                one.state = "paused"
                await self._stop(one)
                await self._save()
                self._tell(one)
            return one

    async def resume(self, number: str) -> Remembered:
        """Go on with it. Raises UnknownDownloadError, HubError."""
        await self._process.renew()
        async with self._turns[self[number].id]:
            one = self[number]
            if one.state in ("paused", "failed"):
                self._check_count()
                await self._run(one)
                await self._save()
            return one

    async def cancel(self, number: str) -> Remembered:
        """End it, remove what has come of it, and forget it. Raises UnknownDownloadError, HubError.

        A model that is complete stays: this is not how one deletes.
        """
        async with self._turns[self[number].id]:
            one = self[number]
            if one.state != "complete":
                one.state = "paused"
                try:
                    await self._discard(one)
                except HubError:
                    await self._save()
                    self._tell(one)
                    raise
            self._forget(one)
            await self._save()
            self._tell(one, "cancelled")
            return one

    async def search(self, query: str, limit: int) -> list[SearchHit]:
        """Return repositories with GGUF files. Raises HubError."""
        await self._process.renew()
        return await self._process.ask(lambda n: Search(n, query, limit), list[SearchHit])

    async def files(self, repo: str) -> Contents:
        """Return what a repository holds. Raises HubError."""
        await self._process.renew()
        return await self._process.ask(lambda n: Files(n, repo), Contents)

    async def header(self, repo: str, commit: str, path: str, to: Path, size_bytes: int) -> int:
        """Bring the first bytes of a file of the hub into ``to``. Raises HubError."""
        return await self._process.ask(
            lambda n: Header(n, repo, commit, path, str(to), size_bytes), int
        )

    async def remove(self, paths: Iterable[Path]) -> Removed:
        """Remove a model of the cache whose files these are. Raises HubError."""
        texts = tuple(str(path) for path in paths)
        return await self._process.ask(lambda n: Remove(n, texts), Removed)

    async def _run_again(self, one: Remembered) -> None:
        """Go on with what was under way, unless it was paused meanwhile."""
        if one.id not in self._known:
            return
        async with self._turns[one.id]:
            is_wanted = one.id in self._known and one.state == "running"
            if is_wanted and one.id not in self._over:
                await self._run(one)

    async def _run(self, one: Remembered) -> None:
        one.state = "running"
        one.error = one.error_code = ""
        self._over.setdefault(one.id, asyncio.Event())
        try:
            await self._process.send(Start(one.id, one.repo, one.tag, one.file))
        except HubError as error:
            self._over.pop(one.id).set()
            one.state, one.error_code, one.error = "failed", error.code, error.message
        self._tell(one)

    async def _stop(self, one: Remembered) -> None:
        """Have the process stop, and wait until it has: then nobody writes any more."""
        over = self._over.get(one.id)
        if over is None:
            return
        await self._process.send(Stop(one.id))
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await over.wait()
        except TimeoutError:
            _log.warning("download %s does not end", one.repo)

    async def _discard(self, one: Remembered) -> None:
        await self._stop(one)
        blobs = one.progress.blobs
        await self._process.ask(lambda n: Discard(n, one.repo, blobs), int)

    def _take(self, message: Moved | Ended) -> None:
        one = self._known.get(message.download)
        if one is None:
            return
        blobs = message.progress.blobs or one.progress.blobs
        one.progress = msgspec.structs.replace(message.progress, blobs=blobs)
        if isinstance(message, Moved):
            if one.progress.done_bytes > self._ended_at_bytes.get(one.id, -1):
                self._restarts_count = 0
            self._tell(one)
            return
        over = self._over.pop(one.id, None)
        if message.pulled is not None:
            one.state = "complete"
            self._spawn(self._completed(one, message.pulled.model), f"completed {one.repo}")
        elif message.code:
            one.state, one.error_code, one.error = "failed", message.code, message.message
            _log.warning("download of %s has failed: %s", one.repo, message.message)
        elif one.state == "running" and not self._is_closing:
            # It was stopped late, and is wanted again.
            self._spawn(self._run_again(one), f"resume {one.repo}")
        if over is not None:
            over.set()
        if not self._is_closing:
            self._spawn(self._save(), "save downloads")
            self._tell(one)

    async def _completed(self, one: Remembered, model: str) -> None:
        one.progress = msgspec.structs.replace(one.progress, model=model, note="")
        _log.info("downloaded %s", model)
        try:
            await self._on_complete(model)
        except Exception as error:  # noqa: BLE001 - the model is there all the same
            _log.error("looking for the new model has failed: %s", error)
        self._tell(one)

    def _process_ended(self) -> None:
        """Go on with what was under way, in a new process, if that is of use."""
        self._restarts_count += 1
        for number, over in list(self._over.items()):
            del self._over[number]
            over.set()
            one = self._known.get(number)
            if one is None or one.state != "running":
                continue
            self._ended_at_bytes[number] = one.progress.done_bytes
            if self._restarts_count > _RESTARTS_MAX_COUNT:
                one.state, one.error_code = "failed", "internal_error"
                one.error = "the process for downloads has ended again and again"
                self._tell(one)
            else:
                self._spawn(self._run_again(one), f"resume {one.repo}")

    def _check_count(self) -> None:
        if _running_count(self._known.values()) >= _RUNNING_MAX_COUNT:
            raise HubError("busy", f"{_RUNNING_MAX_COUNT} downloads are under way already")

    def _forget(self, one: Remembered) -> None:
        self._known.pop(one.id, None)
        self._turns.pop(one.id, None)
        self._ended_at_bytes.pop(one.id, None)

    def _make_room(self) -> None:
        self._check_count()
        for state in ("complete", "failed", "paused"):
            for one in list(self._known.values()):
                if len(self._known) < _DOWNLOADS_MAX_COUNT:
                    return
                if one.state == state and one.id not in self._over:
                    self._forget(one)

    def _tell(self, one: Remembered, state: str = "") -> None:
        progress = one.progress
        self._publish(
            DownloadChanged(
                time_s=time.time(),
                model=progress.model or str(_reference(one)),
                download=one.id,
                state=state or one.state,
                done_bytes=progress.done_bytes,
                total_bytes=progress.total_bytes or None,
                bytes_per_s=float(progress.speed_bytes_per_s) if one.state == "running" else 0.0,
                error=one.error,
            )
        )

    async def _save(self) -> None:
        async with self._saving:
            if self._list_lock is None:
                return
            content = msgspec.json.encode(list(self._known.values()))
            try:
                await asyncio.to_thread(replace_file, self._path, content)
            except OSError as error:
                _log.warning("the list of downloads cannot be kept: %s", error)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _lock_list(path: Path) -> int | None:
    try:
        return try_lock(path.with_name(f"{path.name}.lock"))
    except OSError as error:
        _log.warning("the list of downloads cannot be locked: %s", error)
        return None


def _reference(one: Remembered) -> Reference:
    return Reference(one.repo, one.tag, one.file)


def _running_count(downloads: Iterable[Remembered]) -> int:
    return sum(one.state == "running" for one in downloads)


def _read(path: Path) -> list[Remembered]:
    """Return what an earlier router has remembered; nothing if that makes no sense."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_MAX_BYTES)
        found = msgspec.json.decode(content, type=list[Remembered])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("the list of downloads cannot be read: %s", error)
        return []
    return [one for one in found if one.id.isascii() and one.id.isdigit()][:_DOWNLOADS_MAX_COUNT]
