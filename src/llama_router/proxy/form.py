"""Walking through a multipart form (RFC 7578), part by part, with few bytes in hand at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llama_router.proxy.errors import BadRequestError

if TYPE_CHECKING:
    from typing_extensions import Buffer

# RFC 2046, section 5.1.1.
_MAX_BOUNDARY_BYTES = 70
_FEED_BYTES = 256 * 1024
# Type and boundary fit in a tenth of it.
MAX_FORM_TYPE_BYTES = 1024
_DISPOSITION = b"content-disposition"

Sink = Callable[[bytes], object]


class Part(msgspec.Struct, frozen=True):
    """The head of a part. ``fields`` are its other header fields, as they were written."""

    name: bytes | None
    file_name: bytes | None
    fields: tuple[tuple[bytes, bytes], ...]


class Visitor(Protocol):
    """Is shown the parts of a form in order."""

    def on_part(self, part: Part) -> Sink | None:
        """A part begins. Return what takes its content, None to have that skipped."""

    def on_part_end(self) -> None:
        """The part is over."""


def is_multipart(content_type: bytes | None) -> bool:
    """Tell whether a Content-Type says that the body is a form with parts."""
    return content_type is not None and content_type[:19].lower() == b"multipart/form-data"


def walk_form(body: "Buffer", content_type: bytes, visitor: Visitor) -> None:
    """Show ``visitor`` every part. Raises BadRequestError when the form is malformed."""
    if len(content_type) > MAX_FORM_TYPE_BYTES:
        raise BadRequestError("the multipart body's Content-Type is too long")
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary or len(boundary) > _MAX_BOUNDARY_BYTES:
        raise BadRequestError("the multipart body's Content-Type names no usable boundary")
    walk = _Walk(visitor)
    try:
        parser = MultipartParser(boundary, walk.callbacks())  # type: ignore[arg-type]
        # A mapped file cannot be closed while a view of it is open.
        with memoryview(body) as view:
            for start in range(0, len(view), _FEED_BYTES):
                parser.write(bytes(view[start : start + _FEED_BYTES]))
        parser.finalize()
    except FormParserError as error:
        raise BadRequestError(f"the multipart body is malformed: {error}") from None
    if not walk.ended:
        raise BadRequestError("the multipart body has no end")


class _Walk:
    """Makes parts of what the parser calls out."""

    def __init__(self, visitor: Visitor) -> None:
        self.ended = False
        self._visitor = visitor
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._sink: Sink | None = None

    def callbacks(self) -> dict[str, object]:
        """Return what MultipartParser is to call."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._visitor.on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._fields = []
        self._sink = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() != _DISPOSITION:
            self._fields.append((self._name, self._value))
        elif self._disposition:
            raise BadRequestError("a part of the form has two Content-Disposition fields")
        else:
            self._disposition = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        part = Part(options.get(b"name"), options.get(b"filename"), tuple(self._fields))
        self._sink = self._visitor.on_part(part)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink(data[start:end])

    def _on_end(self) -> None:
        self.ended = True
