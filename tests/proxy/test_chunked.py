from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_router.proxy.chunked import LAST_CHUNK, ChunkedError, ChunkedScanner, encode_chunk
from llama_router.proxy.limits import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES

PIECES = st.lists(st.binary(min_size=1, max_size=80), max_size=12)


def encode(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    return b"".join(map(encode_chunk, pieces)) + b"0\r\n" + trailer + b"\r\n"


def feed(scanner: ChunkedScanner, parts: list[bytes], out: list[bytes] | None) -> None:
    for part in parts:
        scanner.scan(part, out)


def at_boundary(scanner: ChunkedScanner) -> bool:
    return scanner.at_boundary


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(one % (len(data) + 1) for one in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    PIECES,
    st.lists(st.integers(min_value=0), max_size=8),
    st.binary(max_size=20),
    st.sampled_from([b"", b"x-sum: 1\r\n", b"a:\r\nb: c\r\n"]),
    st.booleans(),
)
def test_however_it_is_cut_the_same_comes_out_and_the_end_is_found(
    pieces: list[bytes],
    at: list[int],
    rest: bytes,
    trailer: bytes,
    decode: bool,  # noqa: FBT001
) -> None:
    whole = encode(pieces, trailer)
    scanner = ChunkedScanner()
    out: list[bytes] | None = [] if decode else None
    taken = 0
    for part in cut(whole + rest, at):
        if not part:
            continue
        end = scanner.scan(part, out)
        if end >= 0:
            assert taken + end == len(whole)
            break
        taken += len(part)
    else:
        pytest.fail("the end was not found")
    if out is not None:
        assert b"".join(out) == b"".join(pieces)


@given(PIECES)
def test_byte_by_byte_it_ends_with_the_last_byte(pieces: list[bytes]) -> None:
    whole = encode(pieces)
    scanner = ChunkedScanner()
    ends = [scanner.scan(bytes([byte])) for byte in whole]
    assert ends == [-1] * (len(whole) - 1) + [1]


@given(PIECES.filter(bool))
def test_a_boundary_is_where_no_chunk_is_open(pieces: list[bytes]) -> None:
    scanner = ChunkedScanner()
    for piece in pieces:
        chunk = encode_chunk(piece)
        assert at_boundary(scanner)
        scanner.scan(chunk[:-1])
        assert not at_boundary(scanner)
        scanner.scan(chunk[-1:])
    assert at_boundary(scanner)
    scanner.scan(LAST_CHUNK[:3])
    assert not at_boundary(scanner)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"+1\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"1\n",
        b"1;a\rb\r\n",
        b"1;a\0\r\n",
        b"f" * 16 + b"\r\n",
        b"1" + b";" * MAX_CHUNK_LINE_BYTES + b"\r\n",
        b"1;" + b"a" * MAX_CHUNK_LINE_BYTES,
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\r\r\n",
        b"0\r\nabc\r\n",
        b"0\r\n: b\r\n",
        b"0\r\na b: c\r\n",
        b"0\r\na: b\n",
        b"0\r\n a: b\r\n",
        b"0\r\na: \0\r\n",
        b"0\r\n1\r\nx\r\n",
        b"0\r\n" + b"a: b\r\n" * (MAX_TRAILER_BYTES // 6 + 1),
        b"0\r\na: " + b"b" * MAX_TRAILER_BYTES,
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("decode", [False, True])
def test_what_is_not_the_coding_is_refused(data: bytes, *, bytewise: bool, decode: bool) -> None:
    scanner = ChunkedScanner()
    parts = [data[n : n + 1] for n in range(len(data))] if bytewise else [data]
    out: list[bytes] | None = [] if decode else None
    with pytest.raises(ChunkedError):
        feed(scanner, parts, out)


def test_extensions_and_upper_case_sizes_are_taken() -> None:
    out: list[bytes] = []
    assert ChunkedScanner().scan(b'A ;a="b"\r\n0123456789\r\n00\r\n\r\n', out) == 28
    assert out == [b"0123456789"]


def test_a_chunk_behind_the_last_one_is_not_taken_for_a_chunk() -> None:
    scanner = ChunkedScanner()
    assert scanner.scan(b"0\r\n") == -1
    with pytest.raises(ChunkedError):
        scanner.scan(encode_chunk(b"hidden"))
