"""Work on the text of a config while requests are served: of a long one in another process.

Parsing YAML takes Python a microsecond or more for each character, during which the requests would
have to share the interpreter with it. A short text is done with before a process would have begun.
"""

import contextlib
import pickle
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from llama_router.config.edit import Edit, edited_document
from llama_router.config.problems import ConfigError, Issue, Problem
from llama_router.config.schema import Config
from llama_router.config.secrets import redacted_text
from llama_router.runtime.config_file import ConfigSource, ReadError, Reading, located
from llama_router.runtime.helper import end_helper, start_helper

_T = TypeVar("_T")

# What is parsed here at most: some 0.1 s, as long as a process takes to begin.
PARSED_HERE_MAX_CHARS = 32 * 1024
# Of an edit of the largest file that is allowed, on a slow machine.
_TIMEOUT_S = 600.0
_WORKER = "llama_router.runtime.config_worker"
_PARSER = "the process that parses the config"
_OVER = "the router ends"


class ConfigAside:
    """Has texts read and changed. Its methods block their thread; ``close`` is for any.

    They raise ConfigError for what is wrong with a text, and ReadError when there is no answer.
    """

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def read(self, source: ConfigSource, text: str | None = None) -> Reading:
        """Read a config, or ``text`` in its place."""
        chars = _size_of(source) if text is None else len(text)
        return self._do(chars, _read, source, text)

    def edit(self, source: ConfigSource, path: Path, text: str, edits: Sequence[Edit]) -> Reading:
        """Read what edits make of the text of the file at ``path``; it is not written."""
        # The text, once more for the place of each change, and what comes of it.
        values_chars = sum(len(str(edit.value)) for edit in edits)
        parsed_chars = len(text) * (2 + len(edits)) + values_chars
        return self._do(parsed_chars, _edit, source, path, text, tuple(edits))

    def locate(self, path: Path, reading: Reading, issues: Sequence[Issue]) -> tuple[Problem, ...]:
        """Say where these are in the file at ``path`` that was read."""
        # Not the config, which may be long.
        text = Reading(Config(), reading.text, is_foreign=reading.is_foreign)
        return self._do(len(reading.text or ""), located, path, text, tuple(issues))

    def redact(self, text: str, path: Path) -> str:
        """Return the text of the file at ``path`` without its secrets."""
        return self._do(len(text) * 2, redacted_text, text, path)

    def close(self) -> None:
        """End what is under way in other processes, and start none any more."""
        with self._lock:
            self._is_closed = True
            for child in self._children:
                child.kill()

    def _do(self, parsed_chars: int, work: Callable[..., _T], *arguments: object) -> _T:
        if parsed_chars <= PARSED_HERE_MAX_CHARS:
            return work(*arguments)
        # It comes from our own child, over a pipe.
        answer, problems = pickle.loads(self._asked(pickle.dumps((work, arguments))))  # noqa: S301
        if problems:
            raise ConfigError(problems)
        result: _T = answer
        return result

    def _asked(self, request: bytes) -> bytes:
        """Return the answer of a process. Raises ReadError when it has ended without."""
        with self._lock:
            if self._is_closed:
                raise ReadError(_OVER)
            try:
                child = start_helper(_WORKER)
            except OSError as error:
                raise ReadError(f"{_PARSER} cannot be started: {error}") from None
            self._children.add(child)
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            child.kill()

        timer = threading.Timer(_TIMEOUT_S, give_up)
        try:
            timer.start()
            if child.stdin is None or child.stdout is None:
                raise ReadError(f"{_PARSER} has no pipes")
            # One that has ended already says so by its status.
            with contextlib.suppress(OSError):
                child.stdin.write(request)
                child.stdin.flush()
            answer = child.stdout.read()
            status = child.wait()
            if status:
                raise ReadError(self._why_none(status, is_late=is_late.is_set()))
            return answer
        except RuntimeError as error:
            raise ReadError(f"{_PARSER} cannot be watched: {error}") from None
        finally:
            timer.cancel()
            with self._lock:
                self._children.discard(child)
            end_helper(child)

    def _why_none(self, status: int, *, is_late: bool) -> str:
        if self._is_closed:
            return _OVER
        if is_late:
            how = f"has given no answer, not within {_TIMEOUT_S:.0f} s"
        elif status < 0:
            how = f"was ended by signal {-status} (is memory short?)"
        else:
            how = f"has failed, with status {status}"
        return f"{_PARSER} {how}; nothing was changed"


def _size_of(source: ConfigSource) -> int:
    try:
        return source.path.stat().st_size if source.path is not None else 0
    except OSError:
        return 0


def _read(source: ConfigSource, text: str | None) -> Reading:
    return source.read() if text is None else source.read_text(text)


def _edit(source: ConfigSource, path: Path, text: str, edits: Sequence[Edit]) -> Reading:
    return source.read_document(edited_document(text, edits, path, max_count=len(edits)))
