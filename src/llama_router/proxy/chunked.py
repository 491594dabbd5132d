"""The chunked transfer coding (RFC 9112, section 7.1), strictly.

One machine serves both directions: it *scans* an engine's chunked body, whose raw bytes are relayed
and of which only the end matters, and it *decodes* bodies that have to be framed anew.
"""

import re

from llama_router.proxy.limits import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES

# At most 15 hexadecimal digits: beyond any body, and below where 64-bit parsers disagree.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\Z")
LAST_CHUNK = b"0\r\n\r\n"


class ChunkedError(ValueError):
    """The bytes are not chunked coding."""


def encode_chunk(data: bytes) -> bytes:
    """Return ``data``, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _skip_whole(data: bytes, pos: int, out: list[bytes] | None) -> int:
    """Take the chunks that are whole, well-formed and not the last; return where they end."""
    length = len(data)
    while (line := _SIZE_LINE.match(data, pos)) is not None:
        start = line.end()
        end = start + int(line[1], 16)
        behind = end + 2
        if (
            end == start
            or behind > length
            or start - pos > MAX_CHUNK_LINE_BYTES
            or data[end:behind] != b"\r\n"
        ):
            break
        if out is not None:
            out.append(data[start:end])
        pos = behind
    return pos


class ChunkedScanner:
    """Finds the end of a chunked body that comes in pieces.

    ``at_boundary`` is true while no chunk is open, so that a chunk of one's own would fit in.
    """

    __slots__ = ("_held", "_in_trailer", "_left", "_need_crlf", "_trailer_bytes", "at_boundary")

    def __init__(self) -> None:
        self._left = 0
        self._need_crlf = False
        self._in_trailer = False
        self._held = b""
        self._trailer_bytes = 0
        self.at_boundary = True

    def scan(self, data: bytes, out: list[bytes] | None = None) -> int:
        """Take the next bytes; return the index behind the body's end in ``data``, or -1.

        The decoded pieces are appended to ``out`` when it is given.
        Raises ChunkedError at the first byte that cannot belong to a chunked body.
        """
        if self.at_boundary and out is None:
            # An event in a chunk of its own, whole: what engines send all day.
            match = _SIZE_LINE.match(data)
            if match is not None:
                size = int(match[1], 16)
                end = match.end() + size
                if size and end + 2 == len(data) and data.endswith(b"\r\n"):
                    return -1
        return self._scan(data, out)

    def _scan(self, data: bytes, out: list[bytes] | None) -> int:
        # What was held of an unfinished line comes before ``data``: positions are kept relative
        # to ``data`` by counting it off at the end.
        offset = len(self._held)
        if offset:
            data = self._held + data
            self._held = b""
        pos = 0
        length = len(data)
        while pos < length:
            if self._left:
                taken = min(self._left, length - pos)
                if out is not None:
                    out.append(data[pos : pos + taken])
                self._left -= taken
                pos += taken
                self._need_crlf = self._left == 0
                continue
            if self._need_crlf:
                end_of_data = data[pos : pos + 2]
                if end_of_data == b"\r":
                    break
                if end_of_data != b"\r\n":
                    raise ChunkedError("a chunk is longer than its size says")
                self._need_crlf = False
                pos += 2
                continue
            line_end = self._take_line(data, pos, out)
            if line_end < 0:
                break
            if self._in_trailer and line_end == pos + 2:
                self.at_boundary = False
                return line_end - offset
            pos = line_end
        self._held = data[pos:]
        self.at_boundary = not (self._left or self._need_crlf or self._held or self._in_trailer)
        return -1

    def _take_line(self, data: bytes, pos: int, out: list[bytes] | None) -> int:
        """Take whole chunks, or a size or trailer line, at ``pos``.

        Returns the index behind them, -1 if the line is cut off.
        """
        if self._in_trailer:
            return self._take_trailer_line(data, pos)
        behind_chunks = _skip_whole(data, pos, out)
        if behind_chunks != pos:
            return behind_chunks
        match = _SIZE_LINE.match(data, pos)
        if match is None:
            newline = data.find(b"\n", pos, pos + MAX_CHUNK_LINE_BYTES)
            if newline >= 0 or len(data) - pos >= MAX_CHUNK_LINE_BYTES:
                raise ChunkedError("a chunk's size line is malformed")
            return -1
        if match.end() - pos > MAX_CHUNK_LINE_BYTES:
            raise ChunkedError("a chunk's size line is too long")
        self._left = int(match[1], 16)
        self._in_trailer = self._left == 0
        return match.end()

    def _take_trailer_line(self, data: bytes, pos: int) -> int:
        newline = data.find(b"\n", pos)
        end = newline + 1 if newline >= 0 else len(data)
        if self._trailer_bytes + end - pos > MAX_TRAILER_BYTES:
            raise ChunkedError("the trailer section is too long")
        if newline < 0:
            return -1
        line = data[pos:newline]
        if not line.endswith(b"\r") or (len(line) > 1 and not _TRAILER_LINE.match(line[:-1])):
            raise ChunkedError("a trailer line is malformed")
        self._trailer_bytes += end - pos
        return end
