"""What an engine gets in place of a request's multipart form: framed anew, filters applied.

The new form has a boundary of its own, drawn at random, and a plain Content-Disposition in each
part: nothing that the client has written can be taken for the end of a part, nor a part for one of
another name, by a parser that reads more into it than ours.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.form import Part, Sink, walk_form
from llama_router.proxy.peek import Peek
from llama_router.proxy.rewrite import Rewrite, refuse_lookalike

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Each part grows a little by being framed anew; a form for an engine has some ten.
_MAX_PART_COUNT = 1024
_GROWTH_BYTES_PER_PART = 128
# What a form can grow by, apart from what is set.
MAX_GROWTH_BYTES = _MAX_PART_COUNT * _GROWTH_BYTES_PER_PART
_BOUNDARY_RANDOM_BYTES = 16
_ESCAPES = ((b'"', b"%22"), (b"\r", b"%0D"), (b"\n", b"%0A"), (b"\\", b"%5C"))
_LINE_BREAKERS = (b"\r", b"\n", b"\0")


def new_boundary() -> bytes:
    """Return a boundary that nobody can have known."""
    return b"llama-router-" + secrets.token_hex(_BOUNDARY_RANDOM_BYTES).encode()


def form_type_of(boundary: bytes) -> bytes:
    """Return the Content-Type of a form with that boundary."""
    return b"multipart/form-data; boundary=" + boundary


def rewrite_form(
    body: "Buffer",
    form_type: bytes,
    rewrite: Rewrite,
    peek: Peek,
    *,
    boundary: bytes,
    write: Callable[[bytes], object],
) -> Peek:
    """Write the new form; return what it says to the router.

    ``peek`` is what was found in ``body``; its model stays what it is. Raises BadRequestError when
    the form is malformed or has too many parts.
    """
    writer = _FormWriter(rewrite, boundary, write)
    walk_form(body, form_type, writer)
    writer.finish()
    stream = peek.stream
    if "stream" in writer.values:
        stream = writer.values["stream"].lower() == b"true"
    elif "stream" in writer.strip:
        stream = False
    return Peek(peek.model, stream, peek.keep_alive_s)


def _field_text(value: bytes) -> bytes | None:
    """Return a JSON value as a form says it: text without quotes, null as nothing."""
    decoded = msgspec.json.decode(value)
    if decoded is None:
        return None
    return decoded.encode() if isinstance(decoded, str) else value


class _FormWriter:
    """Visits the old form and writes the new one."""

    def __init__(self, rewrite: Rewrite, boundary: bytes, write: Callable[[bytes], object]) -> None:
        strip, values = rewrite.changes()
        texts = {key: _field_text(value) for key, value in values.items()}
        self.values = {key: text for key, text in texts.items() if text is not None}
        self.strip = strip | {key for key, text in texts.items() if text is None}
        self._delimiter = b"--%b\r\n" % boundary
        self._end = b"--%b--\r\n" % boundary
        self._write = write
        self._written: set[str] = set()
        self._part_count = 0
        self._is_kept = False

    def on_part(self, part: Part) -> Sink | None:
        """Write the part's head, and have its content copied, unless it is one of those."""
        self._part_count += 1
        if self._part_count > _MAX_PART_COUNT:
            raise BadRequestError(f"the form has more than {_MAX_PART_COUNT} parts")
        name = _checked(part.name)
        key = name.decode("utf-8", "replace")
        refuse_lookalike(key)
        self._is_kept = False
        if key in self.strip or key in self._written:
            return None
        if key in self.values:
            self._write_field(key)
            return None
        disposition = b'Content-Disposition: form-data; name="%b"' % _quoted(name)
        if part.file_name is not None:
            disposition += b'; filename="%b"' % _quoted(part.file_name)
        lines = [self._delimiter, disposition, b"\r\n"]
        for field, value in part.fields:
            if any(one in value for one in _LINE_BREAKERS):
                raise BadRequestError("a header field of the form's part breaks its line")
            lines += (field, b": ", value, b"\r\n")
        self._write(b"".join((*lines, b"\r\n")))
        self._is_kept = True
        return self._write

    def on_part_end(self) -> None:
        """End the part."""
        if self._is_kept:
            self._write(b"\r\n")

    def finish(self) -> None:
        """Add the fields that the old form has not, and the end."""
        for key in self.values:
            if key not in self._written:
                self._write_field(key)
        self._write(self._end)

    def _write_field(self, key: str) -> None:
        self._written.add(key)
        head = b'Content-Disposition: form-data; name="%b"\r\n\r\n' % _quoted(key.encode())
        self._write(b"".join((self._delimiter, head, self.values[key], b"\r\n")))


def _checked(name: bytes | None) -> bytes:
    if name is None:
        raise BadRequestError("a part of the form has no name")
    return name


def _quoted(text: bytes) -> bytes:
    """Return text for between quotes, as browsers write it (HTML, form submission).

    But for the backslash: some parsers would take the quote behind it for a part of the text.
    """
    for one, written in _ESCAPES:
        text = text.replace(one, written)
    return text
