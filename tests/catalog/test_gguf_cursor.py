import io
import random
import struct
import sys
from itertools import pairwise

import pytest

from llama_router.catalog import gguf_cursor
from llama_router.catalog.gguf_cursor import Cursor, GgufError


def cursor_of(content: bytes, *, claimed_bytes: int | None = None) -> Cursor:
    return Cursor(io.BytesIO(content), len(content) if claimed_bytes is None else claimed_bytes)


def strings(lengths: list[int]) -> bytes:
    return b"".join(struct.pack("<Q", length) + b"x" * length for length in lengths)


def test_numbers_and_strings_are_read_in_turn() -> None:
    cursor = cursor_of(struct.pack("<IQ", 7, 1 << 40) + strings([3]))

    assert (cursor.u32(), cursor.u64()) == (7, 1 << 40)
    assert cursor.bytes(3, "a key") == b"xxx"
    with pytest.raises(GgufError, match="incomplete: the header goes on after 23 bytes"):
        cursor.u32()


def test_string_longer_than_can_be_is_refused_before_it_is_read() -> None:
    with pytest.raises(GgufError, match=r"a key of 4 bytes; at most 3"):
        cursor_of(strings([4])).bytes(3, "a key")


def test_file_that_became_shorter_is_incomplete() -> None:
    with pytest.raises(GgufError, match="incomplete: it became shorter"):
        cursor_of(b"abcd", claimed_bytes=100).need(50)


def test_no_more_is_in_memory_than_a_header_can_have() -> None:
    with pytest.raises(GgufError, match="larger than 24 MiB"):
        cursor_of(b"", claimed_bytes=1 << 40).need(1 << 30)


def test_the_largest_header_fits_into_memory_beside_the_copy_that_it_grows_by() -> None:
    # Of 64 MiB that a file may cost; the rest is for what is read out of it.
    most_bytes = 56 << 20
    content = io.BytesIO(bytes(gguf_cursor._MAX_HEADER_BYTES + 1))
    sizes: list[int] = []
    cursor = Cursor(content, 1 << 40, lambda: sizes.append(sys.getsizeof(cursor.buffer)))

    cursor.need(gguf_cursor._MAX_HEADER_BYTES)

    grown = [(before, after) for before, after in pairwise(sizes) if before != after]
    assert 0 < max(map(sum, grown)) < most_bytes


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_strings_are_stepped_over_to_the_byte(seed: int) -> None:
    randomness = random.Random(seed)  # noqa: S311 - no secret
    lengths = [randomness.choice((0, 1, 6, 7, 8, 126, 127, 128, 300)) for _ in range(1000)]
    content = strings(lengths)
    cursor = cursor_of(content + b"tail")

    cursor.skip_strings(len(lengths))

    assert cursor.position == len(content)


def test_what_is_foreseen_ends_with_the_file() -> None:
    cursor = cursor_of(b"abc")

    cursor.foresee(1000)

    assert (cursor.position, bytes(cursor.buffer)) == (0, b"abc")


def test_each_portion_that_the_disk_gives_is_told() -> None:
    content = bytes(1 << 20)
    told: list[int] = []
    cursor = Cursor(io.BytesIO(content), len(content), lambda: told.append(len(cursor.buffer)))

    cursor.need(len(content))

    assert told[-1] == len(content)
    assert max(after - before for before, after in pairwise([0, *told])) <= 1 << 18
