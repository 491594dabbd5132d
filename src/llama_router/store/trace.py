"""The history as a trace: what came when, for whom, how long; as JSON Lines or CSV."""

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from llama_router.store.records import RequestRecord


class TraceLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a trace. ``time_s`` counts from the first; tokens are absent if unknown."""

    time_s: float
    model: str
    key: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None


def trace_lines(records: Iterable[RequestRecord]) -> Iterator[bytes]:
    """Yield the lines of a trace, newline-terminated. ``records`` are in the order of arrival."""
    encoder = msgspec.json.Encoder()
    for line in _trace(records):
        yield encoder.encode(line) + b"\n"


def trace_csv(records: Iterable[RequestRecord]) -> Iterator[bytes]:
    """Yield the same as CSV (RFC 4180, but for the line ends) below a line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TraceLine.__struct_fields__)
    for line in _trace(records):
        yield _taken(text)
        writer.writerow(msgspec.structs.astuple(line))
    yield _taken(text)


def _trace(records: Iterable[RequestRecord]) -> Iterator[TraceLine]:
    first_s: float | None = None
    for record in records:
        if first_s is None:
            first_s = record.time_s
        yield TraceLine(
            time_s=round(record.time_s - first_s, 6),
            model=record.model,
            key=record.key,
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
        )


def _taken(text: io.StringIO) -> bytes:
    content = text.getvalue()
    text.seek(0)
    text.truncate()
    return content.encode()
