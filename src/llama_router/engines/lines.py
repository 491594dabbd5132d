"""From an engine's raw output to lines that are safe to keep and to show."""

import re

# The longest line that is kept whole while it is being read: llama-server's state lines carry the
# model's description, chat template included.
MAX_RAW_LINE_BYTES = 256 * 1024

# The longest log line; the rest is cut, with a mark.
MAX_LOG_LINE_BYTES = 8 * 1024
CUT_MARK = " [...]"

# Cleaning costs some 50 ns a letter.
MAX_BYTES_PER_TAKE = 16 * 1024

# A carriage return ends a line too: progress bars are lines, not one endless line.
_BREAK = re.compile(rb"[\r\n]+")

# Letters of Latin-1 that are not to be printed: to a space, or to nothing.
_CLEAN = {
    code: " " if chr(code).isspace() else None
    for code in range(0x100)
    if not chr(code).isprintable()
}

# ECMA-48: CSI sequences; OSC and the other strings up to their end; two-character escapes.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


class LineBuffer:
    """Cuts chunks into lines. Blank lines are dropped; over-long ones lose their end."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched_bytes = 0
        self._is_skipping = False
        # Whether the last take may have left complete lines behind.
        self.is_behind = False

    def feed(self, data: bytes) -> None:
        """Take in a chunk."""
        self._buffer += data

    def take(self, max_lines: int) -> list[bytes]:
        """Return up to ``max_lines`` complete lines, and none after MAX_BYTES_PER_TAKE.

        ``is_behind`` says then whether there may be more.
        """
        lines: list[bytes] = []
        start = 0
        self.is_behind = True
        while len(lines) < max_lines and start < MAX_BYTES_PER_TAKE:
            found = _BREAK.search(self._buffer, max(start, self._searched_bytes))
            if found is None:
                self._searched_bytes = len(self._buffer)
                self.is_behind = False
                break
            line = bytes(self._buffer[start : found.start()])
            start = found.end()
            if self._is_skipping:
                self._is_skipping = False
            elif line:
                lines.append(line[:MAX_RAW_LINE_BYTES])
        del self._buffer[:start]
        self._searched_bytes = max(0, self._searched_bytes - start)
        if self._searched_bytes == len(self._buffer):
            self._limit(lines)
        return lines

    def flush(self) -> bytes:
        """Return the line that was begun and will get no end."""
        rest = b"" if self._is_skipping else bytes(self._buffer)
        self._buffer.clear()
        self._searched_bytes = 0
        self._is_skipping = False
        return rest

    def _limit(self, lines: list[bytes]) -> None:
        """Keep the begun line, which is all that the buffer holds, within bounds."""
        if not self._is_skipping and len(self._buffer) > MAX_RAW_LINE_BYTES:
            lines.append(bytes(self._buffer[:MAX_RAW_LINE_BYTES]))
            self._is_skipping = True
        if self._is_skipping:
            self._buffer.clear()
            self._searched_bytes = 0


def log_text(line: bytes) -> str:
    """Return a line as plain text: bad UTF-8 replaced, escapes and control characters gone."""
    text = line[:MAX_LOG_LINE_BYTES].decode("utf-8", "replace")
    if not text.isprintable():
        text = _ESCAPE.sub("", text)
        text = text.translate(_CLEAN)
        if not text.isprintable():
            text = "".join(
                letter if letter.isprintable() else " "
                for letter in text
                if letter.isprintable() or letter.isspace()
            )
    return text + CUT_MARK if len(line) > MAX_LOG_LINE_BYTES else text
