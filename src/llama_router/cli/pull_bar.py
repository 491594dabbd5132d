"""A download on the terminal: a bar where somebody watches, plain lines where a file does."""

import sys
import time
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from llama_router.cli.asking import in_words
from llama_router.cli.ending import tell
from llama_router.cli.logs import escaped

_LINE_EVERY_S = 10.0
_LINE_EVERY_PERCENT = 10


class Watcher(Protocol):
    """Is shown how far a download is."""

    def show(self, done_bytes: int, total_bytes: int, note: str = "") -> None:
        """It has come so far; ``total_bytes`` is 0 as long as it is not known."""


def watcher(what: str) -> "Bar | Lines":
    """Return what fits where stderr goes. To be entered."""
    return Bar(what) if sys.stderr.isatty() else Lines(what)


class Bar:
    """For people."""

    def __init__(self, what: str) -> None:
        self._what = escaped(what)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=_on_one_line()),
            BarColumn(),
            DownloadColumn(binary_units=True, table_column=_on_one_line()),
            TransferSpeedColumn(table_column=_on_one_line()),
            TimeRemainingColumn(table_column=_on_one_line()),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(self._what, total=None)
        self._note = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._progress.stop()

    def show(self, done_bytes: int, total_bytes: int, note: str = "") -> None:
        """See Watcher."""
        self._progress.update(self._task, completed=done_bytes, total=total_bytes or None)
        if note and note != self._note:
            self._note = note
            self._progress.console.print(escaped(note), markup=False, highlight=False)


def _on_one_line() -> Column:
    """On a narrow terminal the bar gets shorter, and no number a second line."""
    return Column(no_wrap=True)


class Lines:
    """For logs: a line now and then, and nothing that moves the cursor."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said_s = -_LINE_EVERY_S
        self._said_percent = -_LINE_EVERY_PERCENT
        self._note = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def show(self, done_bytes: int, total_bytes: int, note: str = "") -> None:
        """See Watcher."""
        if note and note != self._note:
            self._note = note
            tell(note)
        if not total_bytes:
            return
        percent = 100 * done_bytes // total_bytes
        now_s = time.monotonic()
        is_far = percent >= self._said_percent + _LINE_EVERY_PERCENT
        is_late = now_s >= self._said_s + _LINE_EVERY_S and percent != self._said_percent
        if is_far or is_late:
            self._said_percent, self._said_s = percent, now_s
            tell(f"{self._what}: {percent} % of {in_words(total_bytes)}")
