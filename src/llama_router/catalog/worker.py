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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from llama_router.catalog import wire
from llama_router.catalog.candidate import GGUF_SUFFIX
from llama_router.catalog.discovery import discover
from llama_router.catalog.files import NotRegularFileError, open_regular
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


class _Lookout:
    """Implements Headers over an index, and notes where the scan is."""

    def __init__(self, index: HeaderIndex, left_out: Iterable[Path]) -> None:
        self._index = index
        self._left_out = frozenset(left_out)
        self._folder: Path | None = None
        self._is_open = True
        self._step_count = 0

    @property
    def progress(self) -> wire.Progress:
        """Where it is. For any thread."""
        count = self._index.read_count + self._index.known_count
        return wire.Progress(count, self._folder, self._step_count)

    def looks_into(self, folder: Path) -> bool:
        """See Headers."""
        self._step()
        if folder is not self._folder:
            self._is_open = not self._left_out or self._left_out.isdisjoint(
                (folder, *folder.parents)
            )
            self._folder = folder
        return self._is_open

    def of(self, path: Path, status: os.stat_result) -> Header | GgufError:
        """See Headers."""
        self.looks_into(path.parent)
        return self._index.of(path, status, self._step)

    def _step(self) -> None:
        self._step_count += 1


class _Out:
    """Where answers are written, by several threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, answers: Iterable[wire.Answer]) -> None:
        with self._lock:
            self._file.writelines(map(wire.frame, answers))
            self._file.flush()

    @contextlib.contextmanager
    def telling(self, lookout: _Lookout) -> Iterator[None]:
        """Tell from time to time where the scan is, also while it waits for the disk."""
        over = threading.Event()

        def tell() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(_PROGRESS_INTERVAL_S):
                    self.write((lookout.progress,))

        thread = threading.Thread(target=tell, name="tell progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def scan(request: wire.Request, file: BinaryIO) -> None:
    """Carry out one request, and write the answer."""
    notes = _Notes()
    logger = logging.getLogger("llama_router.catalog")
    logger.addHandler(notes)
    logger.propagate = False
    out = _Out(file)
    try:
        if request.try_folder is not None:
            _try(request.try_folder)
            out.write((wire.Done(0, 0, 0),))
            return
        index = HeaderIndex(request.index)
        lookout = _Lookout(index, request.left_out)
        with out.telling(lookout):
            models = discover(wire.sources(request), lookout, request.taken)
            out.write(wire.portions(models))
            index.save(lookout.looks_into)
        counts = (len(models), index.read_count, index.known_count)
        out.write((wire.Done(*counts, tuple(notes.texts)),))
    finally:
        logger.removeHandler(notes)
        logger.propagate = True


def _try(folder: Path) -> None:
    """Return once the folder and the first model in it answer, with whatever."""
    with contextlib.suppress(OSError, NotRegularFileError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(GGUF_SUFFIX):
                opened, _status = open_regular(Path(entry.path))
                with opened:
                    opened.read(1)
                return


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
