"""Reads what the router needs to know from the header of a GGUF file, fast and in bounded memory.

Arrays are skipped without being built (a tokenizer has hundreds of thousands of strings). The file
is hostile: every length is checked against the file's size before anything is allocated or
followed. Source of the format: ``docs/gguf.md`` of ggml and ``ggml/src/gguf.cpp`` of llama.cpp.
"""

import re
import struct
from collections.abc import Sequence
from functools import cache
from itertools import repeat
from math import prod
from pathlib import Path
from typing import BinaryIO

import msgspec

from llama_router.catalog.files import NotRegularFileError, open_regular
from llama_router.catalog.gguf_format import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT_BYTES,
    FILE_TYPE_NAMES,
    MAGIC,
    PARAMETER_KEYS,
    STRUCT_CODES,
    TENSOR_BLOCKS,
    ValueType,
)
from llama_router.catalog.gguf_tensors import Moved, TensorBytes, TensorTally

_MAX_HEADER_BYTES = 32 * 2**20  # the largest tokenizers take 15 MB
_MAX_KEYS = 4096  # real files have fewer than 200
_MAX_KEY_BYTES = 1024  # real keys have fewer than 100
_MAX_TENSORS = 65_536  # the largest models have about 3000 per file
_MAX_TENSOR_NAME_BYTES = 256  # llama.cpp takes 63
_MAX_STRINGS = 4_000_000  # in all arrays: 0.3 s to skip; real files have 800,000 at most
_MAX_DIMENSIONS = 4
_MAX_TEXT_BYTES = 4096  # of a string that is kept; longer ones are cut
_MAX_PER_LAYER_VALUES = 4096
_MAX_TENSOR_BYTES = 2**62
_CHUNK_BYTES = 1 << 20
_BLOCK_STRINGS = 128  # walked one by one when a longer string is among them
_SHORT_STRING_BYTES = 128

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_VERSIONS = (2, 3)


class GgufError(Exception):
    """The file cannot be used as a GGUF model. ``reason`` says why, without the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class GgufInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of one file says.

    Numbers that the file does not state are 0. ``head_count`` and ``head_count_kv`` have one
    element when all layers agree, else one per layer. ``quantization`` is the name of the file
    type as in llama.cpp ("Q4_K_M"), empty when unknown. ``split_no`` counts from 0; files that are
    not split have ``split_count`` 1. ``tensor_bytes`` is the size of the tensors in this file and
    ``tensors`` their sizes by place. ``merge_count`` is the tokenizer's number of merge rules.
    ``parameters`` has those of `PARAMETER_KEYS` that the file states, each as one element or one
    per layer.
    """

    version: int
    architecture: str
    general_type: str
    name: str
    file_type: int | None
    quantization: str
    context_length: int
    block_count: int
    embedding_length: int
    feed_forward_length: tuple[int, ...]
    head_count: tuple[int, ...]
    head_count_kv: tuple[int, ...]
    key_length: int
    value_length: int
    sliding_window: int
    expert_count: int
    vocab_size: int
    has_chat_template: bool
    tensor_count: int
    tensor_bytes: int
    split_no: int
    split_count: int
    split_tensor_count: int
    header_bytes: int
    file_bytes: int
    merge_count: int = 0
    tensors: TensorBytes = TensorBytes()
    parameters: dict[str, tuple[int, ...]] = {}


def read_gguf(path: Path, moved: Sequence[Moved] = ()) -> GgufInfo:
    """Read the header of the file at ``path``; ``moved`` as for `TensorTally`.

    Raises `GgufError`, and nothing else, for whatever is wrong with the path or the file. Blocks
    on the disk: not for an event loop.
    """
    try:
        file, status = open_regular(path)
        with file:
            return _read(_Cursor(file, status.st_size), moved)
    except NotRegularFileError:
        raise GgufError("not a regular file") from None
    except OSError as error:
        raise GgufError(f"cannot be read: {error.strerror or error}") from error


class _Cursor:
    """A position in the file's beginning, of which as much is in memory as was asked for."""

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
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
            raise GgufError(f"truncated: the header goes on after {self.file_bytes} bytes")
        if end > _MAX_HEADER_BYTES:
            raise GgufError(f"the header is larger than {_MAX_HEADER_BYTES >> 20} MiB")
        while len(self.buffer) < end:
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                raise GgufError("truncated while being read")
            self.buffer += chunk

    def u32(self) -> int:
        value: int = _U32.unpack_from(self.buffer, self.need(4))[0]
        return value

    def u64(self) -> int:
        value: int = _U64.unpack_from(self.buffer, self.need(8))[0]
        return value

    def bytes(self, max_bytes: int, what: str) -> bytes:
        size_bytes = self.u64()
        if size_bytes > max_bytes:
            raise GgufError(f"{what} of {size_bytes} bytes; at most {max_bytes} are possible")
        start = self.need(size_bytes)
        return bytes(self.buffer[start : self.position])

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings: the loop that decides how long a header takes."""
        unpack_from = _U64.unpack_from
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
    """Match a block of strings of up to 127 bytes, almost twice as fast as a loop can step."""
    alternatives = (
        re.escape(bytes([size_bytes])) + rb"\x00{7}.{%d}" % size_bytes
        for size_bytes in range(_SHORT_STRING_BYTES)
    )
    return re.compile(rb"(?:%b){%d}+" % (b"|".join(alternatives), _BLOCK_STRINGS), re.DOTALL)


class _Field(msgspec.Struct, frozen=True):
    """Where the value of a key is. ``item_type`` and ``count`` are those of an array."""

    type: ValueType
    position: int
    item_type: ValueType | None = None
    count: int = 1


def _read(cursor: _Cursor, moved: Sequence[Moved]) -> GgufInfo:
    if cursor.file_bytes < len(MAGIC) or cursor.buffer[cursor.need(4) : 4] != MAGIC:
        raise GgufError("not a GGUF file")
    version = cursor.u32()
    if version not in _VERSIONS:
        if version and not version & 0xFFFF:
            raise GgufError("written for big-endian machines")
        raise GgufError(f"GGUF version {version}; only 2 and 3 are supported")
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count > _MAX_TENSORS:
        raise GgufError(f"{tensor_count} tensors; at most {_MAX_TENSORS} are possible")
    if key_count > _MAX_KEYS:
        raise GgufError(f"{key_count} keys; at most {_MAX_KEYS} are possible")
    metadata = _Metadata(cursor, _read_fields(cursor, key_count))
    alignment_bytes = metadata.number(ALIGNMENT_KEY) or DEFAULT_ALIGNMENT_BYTES
    if alignment_bytes & (alignment_bytes - 1):
        raise GgufError(f"{ALIGNMENT_KEY} {alignment_bytes} is not a power of two")
    tensors = _read_tensors(cursor, tensor_count, alignment_bytes, TensorTally(moved))
    return _info(metadata, version, tensor_count, tensors)


def _read_fields(cursor: _Cursor, count: int) -> dict[bytes, _Field]:
    fields: dict[bytes, _Field] = {}
    strings_left = _MAX_STRINGS
    for _ in range(count):
        key = cursor.bytes(_MAX_KEY_BYTES, "a key")
        if not key:
            raise GgufError("a key is empty")
        if key in fields:
            raise GgufError(f"the key {_text(key)!r} occurs twice")
        value_type = _value_type(cursor.u32(), key)
        if value_type is ValueType.ARRAY:
            fields[key] = field = _skip_array(cursor, key, strings_left)
            strings_left -= field.count if field.item_type is ValueType.STRING else 0
            continue
        fields[key] = _Field(value_type, cursor.position)
        if value_type is ValueType.STRING:
            cursor.need(cursor.u64())
        else:
            cursor.need(struct.calcsize("<" + STRUCT_CODES[value_type]))
    return fields


def _skip_array(cursor: _Cursor, key: bytes, max_strings: int) -> _Field:
    item_type = _value_type(cursor.u32(), key)
    count = cursor.u64()
    field = _Field(ValueType.ARRAY, cursor.position, item_type, count)
    if item_type is ValueType.ARRAY:
        raise GgufError(f"{_text(key)!r} is an array of arrays")
    if item_type is not ValueType.STRING:
        cursor.need(count * struct.calcsize("<" + STRUCT_CODES[item_type]))
        return field
    if count > max_strings or count > (cursor.file_bytes - cursor.position) // 8:
        raise GgufError(f"{_text(key)!r} claims {count} strings, more than can be")
    cursor.skip_strings(count)
    return field


def _read_tensors(
    cursor: _Cursor, count: int, alignment_bytes: int, tally: TensorTally
) -> TensorBytes:
    """Step over the tensor infos, check that their data is in the file, and sum its size.

    Tensors of a type that is unknown here, newer than this table, count as empty.
    """
    end = 0
    for _ in range(count):
        name = cursor.bytes(_MAX_TENSOR_NAME_BYTES, "a tensor name")
        dimensions = cursor.u32()
        if dimensions > _MAX_DIMENSIONS:
            raise GgufError(f"tensor {_text(name)!r} has {dimensions} dimensions")
        start = cursor.need(8 * dimensions)
        shape = struct.unpack_from(f"<{dimensions}Q", cursor.buffer, start)
        tensor_type, offset = cursor.u32(), cursor.u64()
        if offset % alignment_bytes:
            raise GgufError(f"tensor {_text(name)!r} is not aligned")
        size_bytes = _tensor_bytes(name, shape, tensor_type)
        tally.add(name, size_bytes)
        end = max(end, offset + size_bytes)
    data_start = -(-cursor.position // alignment_bytes) * alignment_bytes
    if count and data_start + end > cursor.file_bytes:
        raise GgufError(
            f"truncated: {cursor.file_bytes} bytes of the {data_start + end} that the header names"
        )
    return tally.bytes()


def _tensor_bytes(name: bytes, shape: tuple[int, ...], tensor_type: int) -> int:
    elements = prod(shape)
    if not elements:
        raise GgufError(f"tensor {_text(name)!r} has a dimension of 0")
    block_elements, block_bytes = TENSOR_BLOCKS.get(tensor_type, (1, 0))
    if shape and shape[0] % block_elements:
        raise GgufError(f"tensor {_text(name)!r} has rows of no whole number of blocks")
    size_bytes = elements // block_elements * block_bytes
    if max(elements, size_bytes) > _MAX_TENSOR_BYTES:
        raise GgufError(f"tensor {_text(name)!r} has an impossible size")
    return size_bytes


class _Metadata:
    """The values of the keys, decoded when asked for."""

    def __init__(self, cursor: _Cursor, fields: dict[bytes, _Field]) -> None:
        self._buffer = cursor.buffer
        self._fields = fields
        self.file_bytes = cursor.file_bytes
        self._cursor = cursor

    @property
    def header_bytes(self) -> int:
        return self._cursor.position

    def has(self, key: str) -> bool:
        return key.encode() in self._fields

    def text(self, key: str) -> str:
        field = self._fields.get(key.encode())
        if field is None:
            return ""
        if field.type is not ValueType.STRING:
            raise GgufError(f"{key!r} is not a string")
        start = field.position + 8
        size_bytes: int = _U64.unpack_from(self._buffer, field.position)[0]
        return _text(bytes(self._buffer[start : start + min(size_bytes, _MAX_TEXT_BYTES)]))

    def numbers(self, key: str) -> tuple[int, ...]:
        """Give an integer as one element, an array of integers as it is, () when there is none."""
        field = self._fields.get(key.encode())
        if field is None:
            return ()
        item_type = field.item_type if field.type is ValueType.ARRAY else field.type
        if item_type in (None, ValueType.STRING, ValueType.FLOAT32, ValueType.FLOAT64):
            raise GgufError(f"{key!r} is not an integer")
        if field.count > _MAX_PER_LAYER_VALUES:
            raise GgufError(f"{key!r} has {field.count} values")
        code = STRUCT_CODES[ValueType(item_type)]
        values = struct.unpack_from(f"<{field.count}{code}", self._buffer, field.position)
        numbers = tuple(int(value) for value in values)
        if any(number < 0 for number in numbers):
            raise GgufError(f"{key!r} is negative")
        return numbers

    def number(self, key: str) -> int:
        """Give an integer, the greatest of an array of integers, 0 when there is none."""
        return max(self.numbers(key), default=0)

    def array_length(self, key: str) -> int:
        field = self._fields.get(key.encode())
        return field.count if field is not None and field.type is ValueType.ARRAY else 0


def _info(metadata: _Metadata, version: int, tensor_count: int, tensors: TensorBytes) -> GgufInfo:
    architecture = metadata.text("general.architecture")
    split_no = metadata.number("split.no")
    if not architecture and not split_no:
        raise GgufError("general.architecture is missing")
    file_type = metadata.number("general.file_type") if metadata.has("general.file_type") else None

    def numbers(key: str) -> tuple[int, ...]:
        values = metadata.numbers(f"{architecture}.{key}")
        return values[:1] if len(set(values)) == 1 else values

    def number(key: str) -> int:
        return metadata.number(f"{architecture}.{key}")

    return GgufInfo(
        version=version,
        architecture=architecture,
        general_type=metadata.text("general.type"),
        name=metadata.text("general.name"),
        file_type=file_type,
        quantization=FILE_TYPE_NAMES.get(file_type, "") if file_type is not None else "",
        context_length=number("context_length"),
        block_count=number("block_count"),
        embedding_length=number("embedding_length"),
        feed_forward_length=numbers("feed_forward_length"),
        head_count=numbers("attention.head_count"),
        head_count_kv=numbers("attention.head_count_kv"),
        key_length=number("attention.key_length"),
        value_length=number("attention.value_length"),
        sliding_window=number("attention.sliding_window"),
        expert_count=number("expert_count"),
        vocab_size=metadata.array_length("tokenizer.ggml.tokens") or number("vocab_size"),
        has_chat_template=metadata.has("tokenizer.chat_template"),
        tensor_count=tensor_count,
        tensor_bytes=tensors.total,
        split_no=split_no,
        split_count=metadata.number("split.count") or 1,
        split_tensor_count=metadata.number("split.tensors.count"),
        header_bytes=metadata.header_bytes,
        file_bytes=metadata.file_bytes,
        merge_count=metadata.array_length("tokenizer.ggml.merges"),
        tensors=tensors,
        parameters=_parameters(metadata, architecture),
    )


def _parameters(metadata: _Metadata, architecture: str) -> dict[str, tuple[int, ...]]:
    """Collect what there is of `PARAMETER_KEYS`; what is no whole number counts as absent."""
    found = {}
    for key in PARAMETER_KEYS:
        try:
            values = metadata.numbers(f"{architecture}.{key}")
        except GgufError:
            continue
        if values:
            found[key] = values
    return found


def _value_type(tag: int, key: bytes) -> ValueType:
    try:
        return ValueType(tag)
    except ValueError:
        raise GgufError(f"{_text(key)!r} has the unknown type {tag}") from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
