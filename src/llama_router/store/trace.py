"""The history as a trace: what came when, for whom, how long; one JSON object per line."""

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
    first_s: float | None = None
    for record in records:
        if first_s is None:
            first_s = record.time_s
        line = TraceLine(
            time_s=round(record.time_s - first_s, 6),
            model=record.model,
            key=record.key,
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
        )
        yield encoder.encode(line) + b"\n"
