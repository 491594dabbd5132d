"""Messages between the router and its guardian: JSON objects with a length before them.

Standard library only: the guardian imports this.
"""

import json
import struct
from typing import Any

# A message is mostly an engine's environment, which Linux limits to a quarter of the stack (2 MiB).
MAX_MESSAGE_BYTES = 8 * 1024 * 1024

_LENGTH = struct.Struct("!I")

# The keys are those that guardian.py and guardian_client.py agree on.
Message = dict[str, Any]


class WireError(Exception):
    """The peer sent what is not a message; the connection is of no use any more."""


def encode(message: Message) -> bytes:
    """Return the bytes of one message."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes in, return the messages that are complete. Raises :class:`WireError`."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise WireError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                messages.append(json.loads(self._buffer[_LENGTH.size : end]))
            except ValueError as error:
                raise WireError(f"not JSON: {error}") from error
            del self._buffer[:end]
        return messages


def text_of(raw: bytes) -> str:
    """Carry arbitrary bytes (arguments, environment) through JSON; :func:`bytes_of` undoes it."""
    return raw.decode("latin-1")


def bytes_of(text: str) -> bytes:
    """Undo :func:`text_of`."""
    return text.encode("latin-1")
