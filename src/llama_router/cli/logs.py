"""The router's own log on stderr, written by a thread.

A full disk or a slow terminal costs lines, never the event loop.
"""

import logging
import queue
import sys
import threading
from types import TracebackType

# Some megabytes of text; what does not fit is counted and left out.
_MAX_QUEUED_COUNT = 10_000


def escaped(text: str) -> str:
    r"""Return a text in which line breaks, terminal codes and the like are shown as \n, \x1b.

    Names of models come from names of files, which may hold anything.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class _Formatter(logging.Formatter):
    """Keeps a message on one line; a traceback below it has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escaped(super().formatMessage(record))


class _DroppingHandler(logging.Handler):
    def __init__(self, records: "queue.Queue[logging.LogRecord | None]") -> None:
        super().__init__()
        self._records = records
        self.dropped_count = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Made into text by the thread: a flood of lines would hold up the event loop.
            self._records.put_nowait(record)
        except queue.Full:
            self.dropped_count += 1


class LogQueue:
    """While entered, everything logged in this process goes to stderr."""

    def __init__(self, level: str) -> None:
        self._level = level.upper()
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(_MAX_QUEUED_COUNT)
        self._handler = _DroppingHandler(self._records)
        self._handler.setFormatter(
            _Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
        )
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def __enter__(self) -> None:
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(self._level)
        # What these say is ours to say, or nobody's business.
        for name in ("asyncio", "uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._thread.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self._handler)
        try:
            self._records.put(None, timeout=1)
        except queue.Full:
            # Nobody reads stderr; the thread dies with the process.
            return
        self._thread.join(timeout=1)

    def _write(self) -> None:
        reported_count = 0
        while (record := self._records.get()) is not None:
            dropped_count = self._handler.dropped_count
            try:
                if dropped_count > reported_count:
                    sys.stderr.write(f"[{dropped_count - reported_count} lines dropped]\n")
                    reported_count = dropped_count
                sys.stderr.write(self._handler.format(record) + "\n")
                sys.stderr.flush()
            except (OSError, ValueError):
                # EPIPE or a full disk: serving goes on without its log.
                continue
