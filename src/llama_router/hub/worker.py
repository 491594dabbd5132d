"""The hub's process: hashing and disks must not hold up the router.

It takes orders on stdin, one JSON object a line, and ends with it. Run as
``python -P -m llama_router.hub.worker``.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from llama_router.hub import listing
from llama_router.hub.download import Download, Hub
from llama_router.hub.errors import HubError
from llama_router.hub.hubs import Hubs
from llama_router.hub.names import Reference, check_path, check_repo
from llama_router.hub.progress import Pulled
from llama_router.hub.protocol import (
    Answer,
    Discard,
    Ended,
    Failure,
    Files,
    Header,
    Message,
    Moved,
    Order,
    Remove,
    Search,
    Settings,
    Start,
    Stop,
)
from llama_router.hub.removal import discard_parts, remove_model

_log = logging.getLogger(__name__)

# More often than a person sees, and seldom enough to cost nothing.
_TELL_EVERY_S = 0.2
_NICENESS = 10
_OFFLINE = "the hub is not asked: this is offline (HF_HUB_OFFLINE or hub.offline)"
_HEADER_MAX_BYTES = 64 * 1024 * 1024

Send = Callable[[Message], None]


class Worker:
    """Carries out orders; ``send`` takes what there is to say."""

    def __init__(self, hubs: Hubs, send: Send) -> None:
        self._hubs = hubs
        self._send = send
        self._downloads: dict[str, asyncio.Task[Pulled]] = {}
        self._under_way: dict[str, Download] = {}
        self._questions: set[asyncio.Task[None]] = set()

    @property
    def _hub(self) -> Hub:
        return self._hubs.now

    async def take(self, order: Order) -> None:
        """Begin to carry out an order."""
        match order:
            case Settings():
                await self._hubs.go_by(order)
            case Search():
                self._ask(order.number, partial(self._search, order, self._hub))
            case Files():
                self._ask(order.number, partial(self._files, order, self._hub))
            case Header():
                self._ask(order.number, partial(self._header, order, self._hub))
            case Discard():
                self._ask(order.number, partial(self._discard, order))
            case Remove():
                self._ask(order.number, partial(self._remove, order))
            case Start() if order.download not in self._downloads:
                self._begin(order)
            case Stop() if order.download in self._downloads:
                self._downloads[order.download].cancel()
            case _:
                _log.warning("an order that makes no sense now: %s", type(order).__name__)

    async def close(self) -> None:
        """End all of it; what has come stays."""
        tasks: list[asyncio.Task[Any]] = [*self._downloads.values(), *self._questions]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ask(self, number: int, question: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.get_running_loop().create_task(
            self._answer(number, question), name=f"question {number}"
        )
        self._hubs.used_by(task)
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _answer(self, number: int, question: Callable[[], Awaitable[object]]) -> None:
        try:
            result = await question()
            self._send(Answer(number, msgspec.Raw(msgspec.json.encode(result))))
        except HubError as error:
            self._send(Failure(number, error.code, error.message))
        except Exception as error:  # noqa: BLE001 - who asked waits for an answer
            _log.exception("a question to the hub failed")
            self._send(Failure(number, "internal_error", f"{type(error).__name__}: {error}"))

    async def _search(self, order: Search, hub: Hub) -> object:
        _check_online(hub)
        return await listing.search(hub.session, order.query, order.limit)

    async def _files(self, order: Files, hub: Hub) -> object:
        _check_online(hub)
        found, _files = await listing.contents(hub.session, order.repo)
        return found

    async def _header(self, order: Header, hub: Hub) -> object:
        _check_online(hub)
        check_repo(order.repo)
        check_path(order.path)
        url = listing.file_url(hub.session, order.repo, order.commit, order.path)
        wanted = min(order.size_bytes, _HEADER_MAX_BYTES)
        what = f"{order.repo} {order.path}"
        data = await listing.beginning(hub.session, url, wanted, what=what)
        await asyncio.to_thread(Path(order.to).write_bytes, data)
        return len(data)

    async def _remove(self, order: Remove) -> object:
        paths = [Path(path) for path in order.paths]
        return await asyncio.to_thread(remove_model, self._hub.cache, paths)

    async def _discard(self, order: Discard) -> object:
        kept = {blob for one in self._under_way.values() for blob in one.progress.blobs}
        cache = self._hub.cache
        return await asyncio.to_thread(discard_parts, cache, order.repo, order.blobs, kept)

    def _begin(self, order: Start) -> None:
        name = order.download
        teller = _Teller(lambda: self._send(Moved(name, download.progress)))
        reference = Reference(order.repo, order.tag, order.file)
        download = Download(self._hub, reference, teller.tell)
        task = asyncio.get_running_loop().create_task(download.run(), name=f"pull {order.repo}")
        self._hubs.used_by(task)
        self._downloads[name] = task
        self._under_way[name] = download

        def end(_task: object) -> None:
            teller.close()
            self._downloads.pop(name, None)
            self._under_way.pop(name, None)
            self._send(_ended(name, download, task))

        # Not at the end of the task itself: one that is stopped at once never begins.
        task.add_done_callback(end)


def _check_online(hub: Hub) -> None:
    if hub.is_offline:
        raise HubError("offline", _OFFLINE)


def _ended(name: str, download: Download, task: asyncio.Task[Pulled]) -> Ended:
    """Say how a download has ended."""
    if task.cancelled():
        return Ended(name, download.progress)
    match task.exception():
        case None:
            return Ended(name, download.progress, task.result())
        case HubError() as error:
            return Ended(name, download.progress, None, error.code, error.message)
        case error:
            _log.error("a download failed", exc_info=error)
            message = f"{type(error).__name__}: {error}"
            return Ended(name, download.progress, None, "internal_error", message)


class _Teller:
    """Calls ``tell_now`` when something has changed, but not too often."""

    def __init__(self, tell_now: Callable[[], object]) -> None:
        self._tell_now = tell_now
        self._later: asyncio.TimerHandle | None = None

    def tell(self) -> None:
        if self._later is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(_TELL_EVERY_S, self._fire)

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()

    def _fire(self) -> None:
        self._later = None
        self._tell_now()


async def serve(orders: asyncio.Queue[bytes], send: Send) -> None:
    """Carry out what comes, until an empty line. The first one is the settings."""
    settings = msgspec.json.decode(await orders.get(), type=Settings)
    decoder = msgspec.json.Decoder(Order)
    async with Hubs() as hubs:
        worker = Worker(hubs, send)
        try:
            await worker.take(settings)
            while line := await orders.get():
                await worker.take(decoder.decode(line))
        finally:
            await worker.close()


async def _main(source: BinaryIO, sink: BinaryIO) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[bytes] = asyncio.Queue()

    def put(line: bytes) -> None:
        # The loop is closed once the end has been told.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(orders.put_nowait, line)

    def read() -> None:
        for line in source:
            put(line)
        put(b"")

    def send(message: Message) -> None:
        # Without a reader there is no router, and stdin ends in a moment, too.
        with contextlib.suppress(OSError, ValueError):
            sink.write(msgspec.json.encode(message) + b"\n")
            sink.flush()

    threading.Thread(target=read, name="orders", daemon=True).start()
    await serve(orders, send)


def main() -> None:
    """Run the process."""
    logging.basicConfig(format="hub: %(message)s", level=logging.WARNING)
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.stdin.buffer, sys.stdout.buffer))


if __name__ == "__main__":
    main()
