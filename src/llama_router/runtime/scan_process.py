"""One process that looks at the disk, and that a disk which never answers may hold for ever.

Nobody but a thread of its own ever waits for it: what waits for a dead network mount cannot even be
killed before that answers.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llama_router.catalog import wire
from llama_router.runtime.helper import start_helper

_WORKER = "llama_router.catalog.worker"
# It says four times a second where it is. A disk that sleeps takes up to half a minute to spin up,
# one in a cabinet of several longer; so a scan that is nowhere else after a minute is stuck.
_STILL_MAX_COUNT = 240
# And a process that says nothing at all for as long is stuck itself. Counted in looks: however long
# this process was stopped for, or the machine asleep, was one of them.
_LOOK_S = 1.0
_SILENT_LOOKS_MAX_COUNT = 60
# Answers that were not taken yet.
_WAITING_MAX_COUNT = 64


class ScanError(Exception):
    """There is no answer; the text says why."""


class StuckError(ScanError):
    """It has come no further for too long; ``folder`` is what it looked into, if that is known."""

    def __init__(self, message: str, folder: Path | None) -> None:
        super().__init__(message)
        self.folder = folder


class ScanProcess:
    """Carries out one request. ``give_up`` at the end, whatever came of it. Raises OSError."""

    def __init__(self, request: wire.Request) -> None:
        self._child = start_helper(_WORKER)
        self._given_up = threading.Event()
        self._frames: queue.Queue[bytes | None] = queue.Queue(_WAITING_MAX_COUNT)
        self._thread = threading.Thread(
            target=self._listen, args=(wire.frame(request),), name="scan", daemon=True
        )
        self._thread.start()

    def answers(self) -> Iterator[wire.Progress | wire.Portion | wire.Done]:
        """Give what it says, up to its `Done`. Raises ScanError."""
        last = wire.Progress(0)
        still_count = 0
        while True:
            answer = self._next(last.folder)
            if isinstance(answer, wire.Failed):
                raise ScanError(answer.problem)
            if isinstance(answer, wire.Progress):
                still_count = still_count + 1 if answer == last else 0
                last = answer
                if still_count >= _STILL_MAX_COUNT:
                    raise StuckError(f"{last.folder} does not answer", last.folder)
            yield answer
            if isinstance(answer, wire.Done):
                return

    def give_up(self) -> None:
        """Kill it, and wait for nothing. Idempotent; for any thread."""
        self._given_up.set()
        self._child.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                self._frames.get_nowait()
        # Whoever still listens goes.
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait(None)

    def has_ended(self, within_s: float | None = 0) -> bool:
        """Tell whether nothing is left of it, waiting so long for that; None: for ever."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _next(self, folder: Path | None) -> wire.Answer:
        for _ in range(_SILENT_LOOKS_MAX_COUNT):
            try:
                content = self._frames.get(timeout=_LOOK_S)
                break
            except queue.Empty:
                continue
        else:
            silence_s = _SILENT_LOOKS_MAX_COUNT * _LOOK_S
            raise StuckError(f"its process has said nothing for {silence_s:.0f} s", folder)
        if content is None:
            raise ScanError("its process has ended before it was done")
        try:
            return wire.answer_decoder.decode(content)
        except msgspec.MsgspecError as error:
            raise ScanError(f"its process says what makes no sense: {error}") from error

    def _listen(self, request: bytes) -> None:
        stdin, stdout = self._child.stdin, self._child.stdout
        # At its end the pipes are closed, and it is waited for.
        with contextlib.suppress(OSError), self._child:
            with contextlib.suppress(OSError, wire.WireError):
                if stdin is not None and stdout is not None:
                    stdin.write(request)
                    stdin.flush()
                    while (content := wire.read_frame(stdout)) is not None:
                        self._put(content)
            self._put(None)

    def _put(self, content: bytes | None) -> None:
        if not self._given_up.is_set():
            self._frames.put(content)
