"""Bodies of requests: read whole, in memory or on disk, before an engine sees a byte.

The model stands in the body, and a body may have to wait for a swap or be sent a second time, so it
is kept. Small bodies stay in memory, within a budget for all together; larger ones go to an
unlinked temporary file, written and read outside the event loop.
"""

import asyncio
import tempfile
from collections.abc import Callable
from typing import IO

from llama_router.proxy.chunked import ChunkedError, ChunkedScanner
from llama_router.proxy.errors import (
    BodyTooLargeError,
    InternalError,
    MalformedRequestError,
    RequestError,
    TooManyBodiesError,
)
from llama_router.proxy.limits import (
    MAX_BODIES_IN_MEMORY_BYTES,
    MAX_BODIES_ON_DISK_BYTES,
    SPOOL_PIECE_BYTES,
    SPOOL_THRESHOLD_BYTES,
)

_RETRY_AFTER_S = 5.0


class BodyBudget:
    """The memory and the disk that all waiting bodies share.

    ``used_bytes`` (of memory) and ``used_on_disk_bytes`` return to 0 when none is held.
    """

    def __init__(
        self,
        limit_bytes: int = MAX_BODIES_IN_MEMORY_BYTES,
        disk_limit_bytes: int = MAX_BODIES_ON_DISK_BYTES,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._disk_limit_bytes = disk_limit_bytes
        self.used_bytes = 0
        self.used_on_disk_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Reserve memory. Raises TooManyBodiesError when it is not there."""
        if self.used_bytes + size_bytes > self._limit_bytes:
            raise _too_many()
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Return what was taken."""
        self.used_bytes -= size_bytes

    def take_on_disk(self, size_bytes: int) -> None:
        """Reserve disk. Raises TooManyBodiesError when it is not there."""
        if self.used_on_disk_bytes + size_bytes > self._disk_limit_bytes:
            raise _too_many()
        self.used_on_disk_bytes += size_bytes

    def give_on_disk(self, size_bytes: int) -> None:
        """Return what was taken."""
        self.used_on_disk_bytes -= size_bytes


def _too_many() -> TooManyBodiesError:
    return TooManyBodiesError(
        "too many large requests are waiting; try again later",
        retry_after_s=_RETRY_AFTER_S,
    )


class Body:
    """A whole request body: ``data``, or ``file`` when it is on disk. ``release`` it when done."""

    __slots__ = ("_budget", "data", "file", "size_bytes")

    def __init__(self, budget: BodyBudget, data: bytes, file: IO[bytes] | None, size: int) -> None:
        self._budget = budget
        self.data = data
        self.file = file
        self.size_bytes = size

    def release(self) -> None:
        """Give back memory and disk. Harmless when repeated."""
        if self.data:
            self._budget.give(len(self.data))
            self.data = b""
        if self.file is not None:
            close_aside(self.file)
            self._budget.give_on_disk(self.size_bytes)
            self.file = None


def close_aside(file: IO[bytes]) -> None:
    """Close outside the event loop: giving back a gigabyte of disk takes its time."""
    asyncio.get_running_loop().run_in_executor(None, file.close)


class BodyReader:
    """Takes the bytes of one body as they come and makes a Body of them.

    ``on_done(Body | RequestError)`` is called once, never from within ``feed`` while the body is in
    memory: then ``feed`` returns it. ``pause`` and ``resume`` hold the client while the disk works.
    """

    def __init__(
        self,
        *,
        content_length: int | None,
        limit_bytes: int,
        budget: BodyBudget,
        pause: Callable[[], None],
        resume: Callable[[], None],
        on_done: Callable[[Body | RequestError], None],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._pause = pause
        self._resume = resume
        self._on_done = on_done
        self._left = content_length
        self._scanner = ChunkedScanner() if content_length is None else None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._on_disk_bytes = 0
        self._file: IO[bytes] | None = None
        self._writing: asyncio.Future[None] | None = None
        self.ended = False
        self._closed = False
        self.received_bytes = 0
        # Chunks can be so many that a read of them takes long to walk through.
        self.is_chunked = content_length is None
        if content_length is not None and content_length > limit_bytes:
            raise BodyTooLargeError(f"the body is larger than {limit_bytes} bytes")

    def feed(self, data: bytes) -> tuple[int, Body | None]:
        """Take bytes; return how many were used, and the Body when it is whole and in memory.

        Raises a RequestError when the body is malformed, too large, or there is no room for it.
        """
        used, pieces = self._cut(data)
        size = sum(map(len, pieces))
        self.received_bytes += size
        if self.received_bytes > self._limit_bytes:
            raise BodyTooLargeError(f"the body is larger than {self._limit_bytes} bytes")
        self._budget.take(size)
        self._held_bytes += size
        self._pieces += pieces
        if self._file is None and self.received_bytes <= SPOOL_THRESHOLD_BYTES:
            if not self.ended:
                return used, None
            whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            # From here the Body answers for the memory.
            self._held_bytes = 0
            self._pieces = []
            return used, Body(self._budget, whole, None, self.received_bytes)
        # What is still held will be written, so it is counted already.
        self._budget.take_on_disk(self.received_bytes - self._on_disk_bytes)
        self._on_disk_bytes = self.received_bytes
        if self.ended or self._held_bytes >= SPOOL_PIECE_BYTES:
            self._spool()
        return used, None

    def close(self) -> None:
        """Drop everything: the client is gone or has been refused."""
        self._closed = True
        self._budget.give(self._held_bytes)
        self._budget.give_on_disk(self._on_disk_bytes)
        self._held_bytes = self._on_disk_bytes = 0
        self._pieces = []
        if self._file is not None and self._writing is None:
            close_aside(self._file)
            self._file = None

    def _cut(self, data: bytes) -> tuple[int, list[bytes]]:
        if self._scanner is not None:
            pieces: list[bytes] = []
            try:
                end = self._scanner.scan(data, pieces)
            except ChunkedError as error:
                raise MalformedRequestError(f"the chunked body is malformed: {error}") from None
            self.ended = end >= 0
            # In one piece: a body in chunks of a byte would cost many times its size.
            return (end if self.ended else len(data)), [b"".join(pieces)] if pieces else []
        left = self._left or 0
        used = min(left, len(data))
        self._left = left - used
        self.ended = self._left == 0
        if not used:
            return 0, []
        return used, [data if used == len(data) else data[:used]]

    def _spool(self) -> None:
        if self._writing is not None:
            # The client is paused; this is the rest of one read.
            return
        pieces, self._pieces = self._pieces, []
        size = sum(map(len, pieces))
        # Told here and not seen there: more can come, and the end with it, while the disk works.
        is_last = self.ended
        loop = asyncio.get_running_loop()
        self._pause()
        self._writing = loop.run_in_executor(None, self._write, pieces, is_last)
        self._writing.add_done_callback(
            lambda written: self._on_written(written, size, is_last=is_last)
        )

    def _write(self, pieces: list[bytes], is_last: bool) -> None:  # noqa: FBT001  # by position
        if self._file is None:
            # Closed by whoever ends up with it: this reader, or the Body.
            self._file = tempfile.TemporaryFile(prefix="llama-router-body-")  # noqa: SIM115
        self._file.writelines(pieces)
        if is_last:
            self._file.flush()
            self._file.seek(0)

    def _on_written(self, written: "asyncio.Future[None]", size: int, *, is_last: bool) -> None:
        self._writing = None
        error = written.exception()
        if self._closed:
            if self._file is not None:
                close_aside(self._file)
                self._file = None
            return
        self._held_bytes -= size
        self._budget.give(size)
        if error is not None:
            self.close()
            self._on_done(InternalError(f"the request's body could not be kept on disk: {error}"))
        elif self._pieces or (self.ended and not is_last):
            self._spool()
        elif self.ended:
            # From here the Body answers for the disk.
            file, self._file = self._file, None
            self._on_disk_bytes = 0
            self._on_done(Body(self._budget, b"", file, self.received_bytes))
        else:
            self._resume()
