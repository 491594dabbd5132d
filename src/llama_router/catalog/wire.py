"""What the router and the process that scans for it say to each other.

Frames: four bytes of length, big-endian, then msgpack. One `Request` goes in; portions of the
answer come out, small enough that taking one apart holds the interpreter for less than a
millisecond.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from llama_router.catalog.discovery import Sources
from llama_router.catalog.model import CatalogModel

# What makes a portion: models, and the further paths and names of them; one takes some 10 µs.
_PORTION_WEIGHT = 40
_NAMES_PER_WEIGHT = 8
_MAX_FRAME_BYTES = (
    16 * 2**20
)  # a model has two thousand bytes at most, but for splits in 1000 parts
_LENGTH = struct.Struct(">I")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look, see `llama_router.catalog.discovery.Sources`; ``index`` remembers headers.

    ``left_out`` are folders that are not looked into, ``taken`` the ids that their models keep.
    With ``try_folder`` nothing is scanned: only whether this folder answers is found out.
    """

    models_dirs: tuple[Path, ...]
    env: dict[str, str]
    home: Path
    platform: str
    files: tuple[Path, ...] = ()
    index: Path | None = None
    left_out: tuple[Path, ...] = ()
    taken: tuple[str, ...] = ()
    try_folder: Path | None = None


def sources(request: Request) -> Sources:
    """Return where a request says to look."""
    return Sources(request.models_dirs, request.env, request.home, request.platform, request.files)


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Still at it: so many files were read, or known, and that is the folder it looks into.

    It is said over and over; ``step_count`` grows with whatever the disk has answered.
    """

    file_count: int
    folder: Path | None = None
    step_count: int = 0


class Portion(msgspec.Struct, frozen=True, tag="portion"):
    """The next models, in the order of their ids."""

    models: tuple[CatalogModel, ...]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """That was all. ``notes`` are warnings for the log."""

    model_count: int
    read_count: int
    known_count: int
    notes: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A fault of ours."""

    problem: str


Answer = Progress | Portion | Done | Failed


class WireError(Exception):
    """The other side says what makes no sense."""


def _to_bytes(value: object) -> bytes:
    # A path may hold bytes that are no text.
    if isinstance(value, Path):
        return os.fsencode(value)
    raise NotImplementedError


def _from_bytes(kind: type, value: object) -> Any:  # noqa: ANN401  # msgspec's word for a hook
    if issubclass(kind, Path) and isinstance(value, bytes):
        return Path(os.fsdecode(value))
    raise TypeError(f"no {kind.__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_bytes)
answer_decoder: "msgspec.msgpack.Decoder[Answer]" = msgspec.msgpack.Decoder(
    Answer, dec_hook=_from_bytes
)


_Message = TypeVar("_Message")


def decode(content: bytes, kind: type[_Message]) -> _Message:
    """Take a frame's content apart. Raises `msgspec.MsgspecError`."""
    return msgspec.msgpack.decode(content, type=kind, dec_hook=_from_bytes)


def frame(message: msgspec.Struct) -> bytes:
    """Give the message with its length before it."""
    content = _encoder.encode(message)
    return _LENGTH.pack(len(content)) + content


def portions(models: Iterable[CatalogModel]) -> Iterator[Portion]:
    """Cut models into portions."""
    chosen: list[CatalogModel] = []
    weight = 0
    for model in models:
        chosen.append(model)
        weight += 1 + (len(model.parts) + len(model.names)) // _NAMES_PER_WEIGHT
        if weight >= _PORTION_WEIGHT:
            yield Portion(tuple(chosen))
            chosen, weight = [], 0
    if chosen:
        yield Portion(tuple(chosen))


def read_frame(file: IO[bytes]) -> bytes | None:
    """Read one frame's content; None at the end. Raises `WireError` for half a frame."""
    head = _read_all(file.read, _LENGTH.size)
    if not head:
        return None
    if len(head) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        if length <= _MAX_FRAME_BYTES:
            content = _read_all(file.read, length)
            if len(content) == length:
                return content
    raise WireError("a frame is not whole")


def _read_all(read: Callable[[int], bytes | None], size_bytes: int) -> bytes:
    chunks = []
    while size_bytes:
        chunk = read(size_bytes)
        if not chunk:
            break
        chunks.append(chunk)
        size_bytes -= len(chunk)
    return b"".join(chunks)
