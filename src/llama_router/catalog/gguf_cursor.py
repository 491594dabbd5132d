"""Steps through the beginning of a GGUF file, of which it holds no more than was asked for."""

import re
import struct
from collections.abc import Callable
from functools import cache
from itertools import repeat
from typing import BinaryIO

# The largest tokenizers take 15 MB. A buffer that grows by copying takes twice its size and an
# eighth for a moment: one as large as this fits into the 64 MiB that a file may cost.
_MAX_HEADER_BYTES = 24 * 2**20
_CHUNK_BYTES = 1 << 18  # stays in the caches of a processor
_FIRST_CHUNK_BYTES = 1 << 16  # many headers are smaller
_BLOCK_STRINGS = 128  # walked one by one when a longer string is among them
_SHORT_STRING_BYTES = 128
_USUAL_BYTES = 7  # of a token, on average

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class GgufError(Exception):
    """The file cannot be used as a GGUF model. ``reason`` says why, without the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cursor:
    """A position in the file's beginning. Its methods raise `GgufError` for what is not there.

    ``on_read`` is called whenever the disk has given some of it.
    """

    def __init__(
        self, file: BinaryIO, file_bytes: int, on_read: Callable[[], object] = lambda: None
    ) -> None:
        self._file = file
        self._on_read = on_read
        self.file_bytes = file_bytes
        self.buffer = bytearray()
        self.position = 0

    def need(self, size_bytes: int) -> int:
        """Make the next bytes available, step over them and return where they begin."""
        start = self.position
        end = start + size_bytes
        if end > len(self.buffer):
            self._fill(end)
        self.position = end
        return start

    def _fill(self, end: int) -> None:
        if end > self.file_bytes:
            raise GgufError(f"incomplete: the header goes on after {self.file_bytes} bytes")
        if end > _MAX_HEADER_BYTES:
            raise GgufError(f"the header is larger than {_MAX_HEADER_BYTES >> 20} MiB")
        while len(self.buffer) < end:
            chunk = self._file.read(_CHUNK_BYTES if self.buffer else _FIRST_CHUNK_BYTES)
            if not chunk:
                raise GgufError("incomplete: it became shorter while it was read")
            self.buffer += chunk
            self._on_read()

    def foresee(self, size_bytes: int) -> None:
        """Have the next bytes in memory, or as many of them as there are."""
        end = min(self.position + size_bytes, self.file_bytes, _MAX_HEADER_BYTES)
        if end > len(self.buffer):
            self._fill(end)

    def u32(self) -> int:
        """Read an unsigned number."""
        value: int = U32.unpack_from(self.buffer, self.need(4))[0]
        return value

    def u64(self) -> int:
        """Read an unsigned number."""
        value: int = U64.unpack_from(self.buffer, self.need(8))[0]
        return value

    def bytes(self, max_bytes: int, what: str) -> bytes:
        """Read a string of at most so many bytes; ``what`` it is, for people."""
        size_bytes = self.u64()
        if size_bytes > max_bytes:
            raise GgufError(f"{what} of {size_bytes} bytes; at most {max_bytes} are possible")
        start = self.need(size_bytes)
        return bytes(self.buffer[start : self.position])

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings: the loop that decides how long a header takes."""
        unpack_from = U64.unpack_from
        match_block = _short_strings().match
        while count:
            buffer, position = self.buffer, self.position
            block = min(count, _BLOCK_STRINGS)
            if block == _BLOCK_STRINGS and (match := match_block(buffer, position)):
                self.position = match.end()
                count -= block
                continue
            try:
                for _ in repeat(None, block):
                    (size_bytes,) = unpack_from(buffer, position)
                    position += size_bytes + 8
            except (struct.error, OverflowError):  # the block is not wholly in the buffer
                self._fill(len(buffer) + 1)
                continue
            self.need(position - self.position)
            count -= block


@cache
def _short_strings() -> re.Pattern[bytes]:
    """Match a block of strings of up to 127 bytes, more than twice as fast as a loop can step.

    The lengths are tried in turn, so the usual ones come first.
    """
    lengths = sorted(range(_SHORT_STRING_BYTES), key=lambda length: abs(length - _USUAL_BYTES))
    alternatives = (
        re.escape(bytes([length]) + bytes(7)) + rb".{%d}" % length for length in lengths
    )
    return re.compile(rb"(?:%b){%d}+" % (b"|".join(alternatives), _BLOCK_STRINGS), re.DOTALL)
