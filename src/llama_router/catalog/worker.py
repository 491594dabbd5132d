"""The process that scans: ``python -P -m llama_router.catalog.worker``.

It reads one `Request` from its stdin, scans at low priority, writes what it finds to its stdout and
ends; at once when its stdin ends, for then whoever asked is gone. What is found is said when all of
it is known, as names depend on each other.
"""

import contextlib
import gc
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from llama_router.catalog import wire
from llama_router.catalog.discovery import discover
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.header_index import HeaderIndex
from llama_router.catalog.headers import Header

_NICENESS = 10
_PROGRESS_INTERVAL_S = 0.25
_MAX_NOTES = 50
_MAX_NOTE_CHARS = 500


class _Notes(logging.Handler):
    """Keeps the first warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.texts) < _MAX_NOTES:
            text = record.getMessage()[:_MAX_NOTE_CHARS]
            self.texts.append(text.encode("utf-8", "replace").decode())


class _Reporting:
    """Headers of which the number is told from time to time."""

    def __init__(self, index: HeaderIndex, out: BinaryIO) -> None:
        self._index = index
        self._out = out
        self._told_at = time.monotonic()

    def of(self, path: Path, status: os.stat_result) -> Header | GgufError:
        header = self._index.of(path, status)
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_INTERVAL_S:
            self._told_at = now
            count = self._index.read_count + self._index.known_count
            self._out.write(wire.frame(wire.Progress(count)))
            self._out.flush()
        return header


def scan(request: wire.Request, out: BinaryIO) -> None:
    """Carry out one request, and write the answer."""
    notes = _Notes()
    logger = logging.getLogger("llama_router.catalog")
    logger.addHandler(notes)
    logger.propagate = False
    try:
        index = HeaderIndex(request.index)
        models = discover(wire.sources(request), _Reporting(index, out))
        out.writelines(wire.frame(portion) for portion in wire.portions(models))
        out.flush()
        index.save()
        counts = (len(models), index.read_count, index.known_count)
        out.write(wire.frame(wire.Done(*counts, tuple(notes.texts))))
        out.flush()
    finally:
        logger.removeHandler(notes)
        logger.propagate = True


def main() -> int:
    """Answer one request on stdin."""
    if sys.platform != "win32":  # there whoever starts it sees to that
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    gc.disable()  # it ends before that could matter
    out = sys.stdout.buffer
    source = sys.stdin.buffer
    try:
        content = wire.read_frame(source)
        if content is None:
            return 0
        request = wire.decode(content, wire.Request)
        threading.Thread(target=_end_with, args=(source,), daemon=True).start()
        scan(request, out)
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001  # whoever asked must learn of it, whatever it is
        with contextlib.suppress(OSError):
            out.write(wire.frame(wire.Failed(f"{type(error).__name__}: {error}")))
            out.flush()
        return 1
    return 0


def _end_with(source: BinaryIO) -> None:
    """End this process when its stdin does."""
    with contextlib.suppress(OSError, ValueError):
        while source.read(4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    # Another thread may be reading stdin, for which a regular end would wait.
    code = main()
    sys.stdout.flush()
    os._exit(code)
