import random

import pytest

from llama_router.engines.lines import (
    CUT_MARK,
    MAX_BYTES_PER_TAKE,
    MAX_LOG_LINE_BYTES,
    MAX_RAW_LINE_BYTES,
    LineBuffer,
    log_text,
)


def test_lines_are_the_same_however_the_stream_is_cut() -> None:
    stream = b"one\r\n\n\ntwo\rthree\n" + b"x" * 1_000 + b"\nfour\n\r\nfi"
    expected = [b"one", b"two", b"three", b"x" * 1_000, b"four"]
    seed = random.randrange(2**32)  # noqa: S311 - not for secrets
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(50):
        buffer = LineBuffer()
        lines, start = [], 0
        while start < len(stream):
            end = start + dice.randint(1, 40)
            buffer.feed(stream[start:end])
            lines += buffer.take(dice.randint(10, 20))
            start = end
        lines += buffer.take(100)
        assert (lines, buffer.flush()) == (expected, b"fi"), f"seed={seed}"


def test_take_returns_no_more_than_asked_and_keeps_the_rest() -> None:
    buffer = LineBuffer()
    buffer.feed(b"a\nb\nc\nd")
    assert buffer.take(2) == [b"a", b"b"]
    assert buffer.take(2) == [b"c"]
    assert buffer.flush() == b"d"
    assert buffer.flush() == b""


def test_an_endless_line_is_cut_once_and_takes_no_more_memory() -> None:
    buffer = LineBuffer()
    lines = []
    for _ in range(40):
        buffer.feed(b"z" * 65_536)
        lines += buffer.take(10)
        assert len(buffer._buffer) <= MAX_RAW_LINE_BYTES + 65_536
    buffer.feed(b"zz\nnext\n")
    lines += buffer.take(10)
    assert lines == [b"z" * MAX_RAW_LINE_BYTES, b"next"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        ("grüße 🙂".encode(), "grüße 🙂"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07shown", "shown"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bMup\x1b(B", "up"),
        (b"a\x00b\x07c\x7fd", "abcd"),
        (b"tab\there", "tab here"),
        (b"bad \xff\xc3", "bad \ufffd\ufffd"),
        ("c1 \x9b31m, bidi \u202eevil".encode(), "c1 31m, bidi evil"),
        (b"cut \x1b[", "cut "),
    ],
)
def test_log_text_is_harmless(raw: bytes, text: str) -> None:
    assert log_text(raw) == text


def test_a_long_log_line_is_cut_with_a_mark() -> None:
    assert log_text(b"q" * (MAX_LOG_LINE_BYTES + 1)) == "q" * MAX_LOG_LINE_BYTES + CUT_MARK
    assert log_text(b"q" * MAX_LOG_LINE_BYTES) == "q" * MAX_LOG_LINE_BYTES


def test_a_take_is_bounded_in_bytes_and_says_that_more_is_left() -> None:
    buffer = LineBuffer()
    line = b"x" * 1_000
    buffer.feed((line + b"\n") * 40)
    first = buffer.take(1_000)
    assert MAX_BYTES_PER_TAKE <= sum(len(one) + 1 for one in first) < MAX_BYTES_PER_TAKE + 1_001
    assert buffer.is_behind
    rest = buffer.take(1_000) + buffer.take(1_000)
    assert first + rest == [line] * 40
    assert not buffer.is_behind


def test_what_cannot_be_printed_becomes_a_space_or_nothing_in_any_alphabet() -> None:
    assert log_text("a\tb\x07c\x85d\xade".encode()) == "a bc de"
    assert log_text("a\u2028b\u200bc".encode()) == "a bc"
