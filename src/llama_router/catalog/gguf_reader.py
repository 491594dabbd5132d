"""Reads what the router needs to know from the header of a GGUF file, fast and in bounded memory.

Arrays are skipped without being built (a tokenizer has hundreds of thousands of strings). The file
is hostile: every length is checked against the file's size before anything is allocated or
followed. Source of the format: ``docs/gguf.md`` of ggml and ``ggml/src/gguf.cpp`` of llama.cpp.
"""

import struct
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import msgspec

from llama_router.catalog.files import NotRegularFileError, open_regular
from llama_router.catalog.gguf_cursor import U32, U64, Cursor, GgufError
from llama_router.catalog.gguf_format import (
    ABOUT_KEYS,
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

__all__ = ["GgufError", "GgufInfo", "read_gguf"]

_MAX_KEYS = 4096  # real files have fewer than 200
_MAX_KEY_BYTES = 1024  # real keys have fewer than 100
_MAX_TENSORS = 65_536  # the largest models have about 3000 per file
_MAX_TENSOR_NAME_BYTES = 256  # llama.cpp takes 63
_MAX_STRINGS = 4_000_000  # in all arrays: 0.3 s to skip; real files have 800,000 at most
_MAX_DIMENSIONS = 4
_MAX_TEXT_BYTES = 4096  # of a string that is kept; longer ones are cut
_MAX_PER_LAYER_VALUES = 4096
_MAX_TENSOR_BYTES = 2**62
_MAX_PARAMETERS = 2**62  # what else is claimed by tensors of a type that is unknown here
_MAX_ABOUT_TEXTS = 32  # of one key; models have up to ten tags, a hundred languages at most
_MAX_ABOUT_CHARS = 200
_MAX_BASE_MODELS = 8

#: After a tensor's name and number of dimensions: the shape, its type, the offset of its data.
_TENSOR_INFOS = tuple(struct.Struct(f"<{count}QIQ") for count in range(_MAX_DIMENSIONS + 1))
_MAX_TENSOR_INFO_BYTES = 8 + _MAX_TENSOR_NAME_BYTES + 4 + _TENSOR_INFOS[-1].size
_VERSIONS = (2, 3)


class GgufInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of one file says.

    Numbers that the file does not state are 0. ``head_count`` and ``head_count_kv`` have one
    element when all layers agree, else one per layer. ``quantization`` is the name of the file
    type as in llama.cpp ("Q4_K_M"), empty when unknown. ``split_no`` counts from 0; files that are
    not split have ``split_count`` 1. ``tensor_bytes`` is the size of the tensors in this file and
    ``tensors`` their sizes by place. ``merge_count`` is the tokenizer's number of merge rules.
    ``parameters`` has those of `PARAMETER_KEYS` that the file states, each as one element or one
    per layer. ``about`` has the texts of `ABOUT_KEYS` that it states, each cut and without control
    characters; ``has_vision`` and ``has_audio`` are a projector's. ``parameter_count`` is the
    number of weights in this file.
    """

    version: int
    architecture: str
    general_type: str
    name: str
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
    header_bytes: int
    file_bytes: int
    merge_count: int = 0
    tensors: TensorBytes = TensorBytes()
    parameters: dict[str, tuple[int, ...]] = {}
    parameter_count: int = 0
    about: dict[str, tuple[str, ...]] = {}
    has_vision: bool = False
    has_audio: bool = False


def read_gguf(
    path: Path, moved: Sequence[Moved] = (), on_read: Callable[[], object] = lambda: None
) -> GgufInfo:
    """Read the header of the file at ``path``; ``moved`` as for `TensorTally`.

    ``on_read`` is called whenever the disk has given some of it.

    Raises `GgufError`, and nothing else, for whatever is wrong with the path or the file. Blocks
    on the disk: not for an event loop.
    """
    try:
        file, status = open_regular(path)
        with file:
            return _read(Cursor(file, status.st_size, on_read), moved)
    except NotRegularFileError:
        raise GgufError("not a regular file") from None
    except OSError as error:
        raise GgufError(f"cannot be read: {error.strerror or error}") from error


class _Field(msgspec.Struct, frozen=True):
    """Where the value of a key is. ``item_type`` and ``count`` are those of an array."""

    type: ValueType
    position: int
    item_type: ValueType | None = None
    count: int = 1


def _read(cursor: Cursor, moved: Sequence[Moved]) -> GgufInfo:
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
    tally = TensorTally(moved)
    tensors, parameter_count = _read_tensors(cursor, tensor_count, alignment_bytes, tally)
    info = _info(metadata, version, tensor_count, tensors)
    return msgspec.structs.replace(info, parameter_count=parameter_count)


def _read_fields(cursor: Cursor, count: int) -> dict[bytes, _Field]:
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


def _skip_array(cursor: Cursor, key: bytes, max_strings: int) -> _Field:
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
    cursor: Cursor, count: int, alignment_bytes: int, tally: TensorTally
) -> tuple[TensorBytes, int]:
    """Step over the tensor infos, check that their data is in the file, and sum bytes and weights.

    Tensors of a type that is unknown here, newer than this table, count as empty.
    """
    end = parameter_count = 0
    buffer = cursor.buffer
    for _ in range(count):
        cursor.foresee(_MAX_TENSOR_INFO_BYTES)
        try:
            start = cursor.position + 8
            (name_bytes,) = U64.unpack_from(buffer, cursor.position)
            if name_bytes > _MAX_TENSOR_NAME_BYTES:
                raise GgufError(f"a tensor name of {name_bytes} bytes")
            name = bytes(buffer[start : start + name_bytes])
            (dimensions,) = U32.unpack_from(buffer, start + name_bytes)
            if dimensions > _MAX_DIMENSIONS:
                raise GgufError(f"tensor {_text(name)!r} has {dimensions} dimensions")
            layout = _TENSOR_INFOS[dimensions]
            start += name_bytes + 4
            *shape, tensor_type, offset = layout.unpack_from(buffer, start)
        except struct.error:
            cursor.need(_MAX_TENSOR_INFO_BYTES)  # says what is missing
            raise
        cursor.position = start + layout.size
        if offset % alignment_bytes:
            raise GgufError(f"tensor {_text(name)!r} is not aligned")
        elements = prod(shape)
        size_bytes = _tensor_bytes(name, shape, elements, tensor_type)
        tally.add(name, size_bytes)
        parameter_count += elements
        end = max(end, offset + size_bytes)
    data_start = -(-cursor.position // alignment_bytes) * alignment_bytes
    if count and data_start + end > cursor.file_bytes:
        raise GgufError(
            f"incomplete: {cursor.file_bytes} bytes of the {data_start + end} that the header names"
        )
    return tally.bytes(), min(parameter_count, _MAX_PARAMETERS)


def _tensor_bytes(name: bytes, shape: Sequence[int], elements: int, tensor_type: int) -> int:
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

    def __init__(self, cursor: Cursor, fields: dict[bytes, _Field]) -> None:
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
        size_bytes: int = U64.unpack_from(self._buffer, field.position)[0]
        return _text(bytes(self._buffer[start : start + min(size_bytes, _MAX_TEXT_BYTES)]))

    def texts(self, key: str) -> tuple[str, ...]:
        """Give a text as one element, the first of an array of texts, () for anything else."""
        field = self._fields.get(key.encode())
        if field is None:
            return ()
        is_array = field.type is ValueType.ARRAY
        if (field.item_type if is_array else field.type) is not ValueType.STRING:
            return ()
        found, position = [], field.position
        for _ in range(min(field.count, _MAX_ABOUT_TEXTS)):
            size_bytes: int = U64.unpack_from(self._buffer, position)[0]
            start = position + 8
            raw = bytes(self._buffer[start : start + min(size_bytes, _MAX_TEXT_BYTES)])
            found.append(_printable(_text(raw)))
            position = start + size_bytes
        return tuple(text for text in found if text)

    def is_true(self, key: str) -> bool:
        """Give a truth value; anything else counts as false."""
        field = self._fields.get(key.encode())
        if field is None or field.type is not ValueType.BOOL:
            return False
        return self._buffer[field.position] != 0

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
        header_bytes=metadata.header_bytes,
        file_bytes=metadata.file_bytes,
        merge_count=metadata.array_length("tokenizer.ggml.merges"),
        tensors=tensors,
        parameters=_parameters(metadata, architecture),
        about=_about(metadata),
        has_vision=metadata.is_true("clip.has_vision_encoder"),
        has_audio=metadata.is_true("clip.has_audio_encoder"),
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


def _about(metadata: _Metadata) -> dict[str, tuple[str, ...]]:
    """Collect what there is of `ABOUT_KEYS`, and the base models' names."""
    keys = list(ABOUT_KEYS)
    for number in range(_MAX_BASE_MODELS):
        keys += [f"general.base_model.{number}.{part}" for part in ("name", "repo_url")]
    return {key: texts for key in keys if (texts := metadata.texts(key))}


def _printable(text: str) -> str:
    """Put a text that a stranger wrote on one line, short and without control characters."""
    # Surrogates, controls, formats such as a change of direction, unassigned: none is printable.
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return line[:_MAX_ABOUT_CHARS]


def _value_type(tag: int, key: bytes) -> ValueType:
    try:
        return ValueType(tag)
    except ValueError:
        raise GgufError(f"{_text(key)!r} has the unknown type {tag}") from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
