"""Traces: who asked for which model when, and how much work that was.

A trace is CSV with a header line, or JSON Lines, with these fields::

    time_s, model, key, tokens_in, tokens_out, is_batch

``time_s`` counts seconds from any origin, ``model`` is needed, the rest may be left out or empty.
Unknown fields are ignored. Nothing of a request's text is ever part of a trace.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

DEFAULT_TOKENS_IN: Final = 256
DEFAULT_TOKENS_OUT: Final = 128
"""Counts are not always known (a client that left, an engine that does not say)."""

MAX_LINE_CHARS: Final = 64 * 1024
"""A line holds a name and a few numbers; longer ones are another kind of file."""
MAX_REQUESTS_COUNT: Final = 10_000_000
"""About 2 GiB as objects."""
MAX_NAME_CHARS: Final = 1024
MAX_TOKENS_COUNT: Final = 10**9
MAX_TIME_S: Final = 1e10
"""Unix times fit; sums of such times keep a microsecond's precision."""


class TraceError(Exception):
    """A trace cannot be used; the text says where and why."""


class TraceRequest(msgspec.Struct, frozen=True, gc=False):
    """One request. ``key`` is the name of the API key, empty when there is none."""

    time_s: float
    model: str
    key: str = ""
    tokens_in: int = DEFAULT_TOKENS_IN
    tokens_out: int = DEFAULT_TOKENS_OUT
    is_batch: bool = False


class _Line(msgspec.Struct):
    """A line as it may be written: numbers as text, counts unknown."""

    time_s: float
    model: str
    key: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    is_batch: bool | None = None


_json_line = msgspec.json.Decoder(_Line)


def read_trace(path: Path) -> list[TraceRequest]:
    """Read a trace, sorted by time and starting at 0. Raises TraceError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return parse_trace(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error


def parse_trace(lines: Iterable[str], name: str) -> list[TraceRequest]:
    """Read a trace from its lines; ``name`` is for messages. See :func:`read_trace`."""
    numbered = _numbered(lines, name)
    first = next(numbered, None)
    if first is None:
        raise TraceError(f"{name}: is empty")
    parse = _parse_json if first[1].startswith("{") else _csv_parser(first[1], name)
    requests: list[TraceRequest] = []
    rest = [first] if parse is _parse_json else []
    for number, text in _chain(rest, numbered):
        if len(requests) >= MAX_REQUESTS_COUNT:
            raise TraceError(f"{name}: has more than {MAX_REQUESTS_COUNT} requests")
        try:
            requests.append(_checked(parse(text)))
        except (msgspec.MsgspecError, ValueError) as error:
            raise TraceError(f"{name}:{number}: {error}") from error
    if not requests:
        raise TraceError(f"{name}: has no requests")
    requests.sort(key=lambda request: request.time_s)
    start_s = requests[0].time_s
    return [
        msgspec.structs.replace(request, time_s=request.time_s - start_s) for request in requests
    ]


def _numbered(lines: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_CHARS:
            raise TraceError(f"{name}:{number}: is longer than {MAX_LINE_CHARS} characters")
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text


def _chain(
    first: list[tuple[int, str]], rest: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, str]]:
    yield from first
    yield from rest


def _parse_json(text: str) -> _Line:
    return _json_line.decode(text)


class _CsvParser:
    """Reads one line at a time, so that every fault has its line's number."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    def __call__(self, text: str) -> _Line:
        try:
            values = next(csv.reader(io.StringIO(text), strict=True))
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if len(values) != len(self._columns):
            raise ValueError(f"has {len(values)} values for {len(self._columns)} columns")
        row = {
            column: value.strip()
            for column, value in zip(self._columns, values, strict=True)
            if value.strip() or column == "key"
        }
        return msgspec.convert(row, _Line, strict=False)


def _csv_parser(header: str, name: str) -> _CsvParser:
    columns = [column.strip() for column in next(csv.reader(io.StringIO(header)))]
    for needed in ("time_s", "model"):
        if needed not in columns:
            raise TraceError(f"{name}: is neither JSON Lines nor CSV with a column '{needed}'")
    return _CsvParser(columns)


def _checked(line: _Line) -> TraceRequest:
    if not math.isfinite(line.time_s) or abs(line.time_s) > MAX_TIME_S:
        raise ValueError(f"time_s is {line.time_s:g}")
    key = line.key or ""
    if not line.model or max(len(line.model), len(key)) > MAX_NAME_CHARS:
        raise ValueError(f"model and key need 1 to {MAX_NAME_CHARS} characters")
    tokens_in = DEFAULT_TOKENS_IN if line.tokens_in is None else line.tokens_in
    tokens_out = DEFAULT_TOKENS_OUT if line.tokens_out is None else line.tokens_out
    if not (0 <= tokens_in <= MAX_TOKENS_COUNT and 0 <= tokens_out <= MAX_TOKENS_COUNT):
        raise ValueError(f"token counts are from 0 to {MAX_TOKENS_COUNT}")
    return TraceRequest(
        line.time_s, line.model, key, tokens_in, tokens_out, is_batch=bool(line.is_batch)
    )
