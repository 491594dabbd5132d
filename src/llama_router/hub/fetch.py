"""One file from the hub into the cache: resumed, verified, and only then under its name."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp

from llama_router.hub.choice import RepoFile
from llama_router.hub.errors import HubError, PassingError
from llama_router.hub.layout import RepoFolder
from llama_router.hub.locks import lock_path, locked
from llama_router.hub.part import Part, disk_error, part_bytes
from llama_router.hub.patience import ATTEMPTS_IN_ALL_MAX_COUNT, delay_s
from llama_router.hub.session import HubSession
from llama_router.hub.threads import in_thread
from llama_router.hub.throttle import Throttle

# Written at once; a thread is asked for each.
_WRITE_BYTES = 1024 * 1024
_WRITE_EVERY_S = 0.25
# Reading so much again for its hash takes seconds.
_MANY_BYTES = 2 * 1024**3
_PARTIAL, _NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
# The first time it may be the line, or what an earlier process left; the second time it is the hub.
_WRONG_MAX_COUNT = 2
# How often the hub may send something else than what there is a part of.
_CHANGED_MAX_COUNT = 3


class Report(Protocol):
    """Is told how a file gets on."""

    def have(self, file: RepoFile, have_bytes: int) -> None:
        """So many bytes of it are there."""

    def note(self, text: str) -> None:
        """Something that a person who watches wants to know."""


class _ChangedError(Exception):
    """What there is of the file and what the hub sends do not belong together."""


class Fetch:
    """Fetches one file. ``url`` is where from; ``gate`` limits how many do so at a time."""

    def __init__(
        self,
        session: HubSession,
        folder: RepoFolder,
        file: RepoFile,
        url: str,
        *,
        throttle: Throttle,
        gate: AbstractAsyncContextManager[object],
        report: Report,
    ) -> None:
        self._session = session
        self._folder = folder
        self._file = file
        self._url = url
        self._throttle = throttle
        self._gate = gate
        self._report = report
        self._what = f"{folder.repo} {file.path}"

    async def run(self) -> None:
        """Have the blob in the cache. Raises HubError; what has come is kept then."""
        folder, file = self._folder, self._file
        if await asyncio.to_thread(folder.has, file.blob, file.size_bytes):
            self._report.have(file, file.size_bytes)
            return
        path = lock_path(folder.cache, folder.name, file.blob)
        try:
            async with locked(path, self._tell_waiting, self._gate):
                # Whoever held the lock may have brought it.
                if not await asyncio.to_thread(folder.has, file.blob, file.size_bytes):
                    await self._fetch()
        except OSError as error:
            raise disk_error(path, error) from None
        self._report.have(file, file.size_bytes)

    def _tell_waiting(self) -> None:
        self._report.note(f"{self._file.path}: another program downloads it; waiting for that")

    async def _fetch(self) -> None:
        part = Part(self._folder, self._file.blob, self._file.size_bytes)
        try:
            kept_bytes = part_bytes(self._folder, self._file.blob)
            if kept_bytes > _MANY_BYTES:
                self._report.note(f"{self._file.path}: reading what is there of it")
            await in_thread(part.open, on_cancel=part.abandon)
            for _ in range(_WRONG_MAX_COUNT):
                self._report.have(self._file, part.have_bytes)
                await self._complete(part)
                if await in_thread(part.is_right):
                    await in_thread(part.finish)
                    return
                self._report.note(f"{self._file.path}: its hash is wrong")
                await in_thread(part.restart)
            await in_thread(part.remove)
        finally:
            await in_thread(part.leave)
        raise HubError(
            "wrong_hash",
            f"{self._what}: what the hub sent twice is not what it says the file is; nothing of it"
            " was kept. Try again later, or tell the repository's owner",
        )

    async def _complete(self, part: Part) -> None:
        """Ask until all of it is there. Raises HubError."""
        patience = self._session.patience
        attempt = changed_count = 0
        for _ in range(ATTEMPTS_IN_ALL_MAX_COUNT):
            before_bytes = part.have_bytes
            try:
                if part.have_bytes == part.size_bytes:
                    return
                await self._ask(part)
                continue
            except _ChangedError as error:
                failure = PassingError(str(error), code="bad_answer")
                await in_thread(part.restart)
                changed_count += 1
                if changed_count >= _CHANGED_MAX_COUNT:
                    break
            except PassingError as error:
                failure = error
            attempt = 1 if part.have_bytes > before_bytes else attempt + 1
            if attempt >= patience.attempts_max_count:
                break
            pause_s = delay_s(patience, attempt, failure.retry_after_s)
            self._report.note(f"{failure.message}; again in {pause_s:.0f} s")
            await asyncio.sleep(pause_s)
        else:
            failure = PassingError(f"{self._what}: the connection breaks again and again")
        raise HubError(failure.code, failure.message)

    async def _ask(self, part: Part) -> None:
        """Ask for what is missing. Raises HubError, PassingError, _ChangedError."""
        headers = {}
        if part.have_bytes:
            headers["Range"] = f"bytes={part.have_bytes}-"
            if part.etag and not part.etag.startswith("W/"):
                headers["If-Range"] = part.etag
        async with self._session.get(self._url, headers, what=self._what) as answer:
            await self._check(part, answer)
            await self._read(part, answer)
        if part.have_bytes < part.size_bytes:
            raise PassingError(f"{self._what}: the connection has ended early")

    async def _check(self, part: Part, answer: aiohttp.ClientResponse) -> None:
        """See that what comes goes on where the part ends, or begins anew."""
        etag = answer.headers.get("ETag", "")[:256]
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise HubError(
                "bad_answer", f"{self._what}: the hub compresses it, though not asked to"
            )
        if answer.status == _NOT_SATISFIABLE:
            raise _ChangedError(f"{self._what}: the hub has less of it than is here")
        if answer.status == _PARTIAL:
            self._check_range(part, answer.headers.get("Content-Range", ""))
            if part.etag and etag and etag != part.etag:
                raise _ChangedError(f"{self._what}: it has changed on the hub")
            await in_thread(part.tag, etag or part.etag)
            return
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise HubError("bad_answer", f"{self._what}: the hub answers with {answer.status}")
        length = answer.content_length
        if length is not None and length != part.size_bytes:
            raise _ChangedError(
                f"{self._what}: the hub sends {length} bytes of a file of {part.size_bytes}"
            )
        if part.have_bytes:
            self._report.note(f"{self._file.path}: the hub begins at the start again")
        await in_thread(part.restart, etag)

    def _check_range(self, part: Part, said: str) -> None:
        match = _CONTENT_RANGE.fullmatch(said)
        if match is None:
            raise _ChangedError(f"{self._what}: the hub does not say which part it sends")
        start, total = int(match[1]), match[3]
        if start != part.have_bytes or total not in ("*", str(part.size_bytes)):
            raise _ChangedError(f"{self._what}: the hub sends another part than asked for")

    async def _read(self, part: Part, answer: aiohttp.ClientResponse) -> None:
        """Read what comes; what has come before a break is kept."""
        waiting = bytearray()
        loop = asyncio.get_running_loop()
        written_at = loop.time()
        try:
            while chunk := await answer.content.read(self._throttle.portion_bytes):
                if part.have_bytes + len(waiting) + len(chunk) > part.size_bytes:
                    waiting.clear()
                    raise _ChangedError(f"{self._what}: the hub sends more than the file has")
                waiting += chunk
                await self._throttle.take(len(chunk))
                if len(waiting) >= _WRITE_BYTES or loop.time() - written_at > _WRITE_EVERY_S:
                    await self._write(part, waiting)
                    written_at = loop.time()
        finally:
            # A thread finishes what it has begun, also when this is cancelled.
            if waiting:
                await self._write(part, waiting)

    async def _write(self, part: Part, waiting: bytearray) -> None:
        data = bytes(waiting)
        waiting.clear()
        await in_thread(part.write, data)
        self._report.have(self._file, part.have_bytes)
