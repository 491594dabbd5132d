"""Writes GGUF v3 files (little-endian) with nothing but the standard library.

Made for the project's own tiny models: weights are 32-bit floats, and a tensor of zeros is left as
a hole in the file, so that a "large" model costs no disk space.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from llama_router.catalog.gguf_format import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT_BYTES,
    MAGIC,
    STRUCT_CODES,
    ValueType,
)

_VERSION = 3
_GGML_TYPE_F32 = 0
_F32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number whose GGUF type is not the one that its Python type suggests."""

    type: ValueType
    value: float


@dataclass(frozen=True, slots=True)
class Array:
    """An array of values of one type (``STRING`` or a type of fixed size)."""

    type: ValueType
    values: Sequence[float] | Sequence[str]


#: A plain ``int`` is written as UINT32, ``float`` as FLOAT32, ``bool`` and ``str`` as themselves.
Value = bool | int | float | str | Scalar | Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of 32-bit floats.

    ``shape`` has the fastest-changing dimension first, as in ggml. ``data`` is little-endian;
    ``None`` means zeros, which take no disk space.
    """

    name: str
    shape: tuple[int, ...]
    data: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the data in the file, without padding."""
        return prod(self.shape) * _F32_BYTES


def gguf_header(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Everything before the tensor data, padded to the alignment."""
    out = bytearray(MAGIC)
    out += struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += _string(key)
        out += _value(value)
    alignment_bytes = _alignment_bytes(metadata)
    offset = 0
    for tensor in tensors:
        out += _string(tensor.name)
        out += struct.pack("<I", len(tensor.shape))
        out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        out += struct.pack("<IQ", _GGML_TYPE_F32, offset)
        offset += _padded(tensor.size_bytes, alignment_bytes)
    out += bytes(_padded(len(out), alignment_bytes) - len(out))
    return bytes(out)


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
    """Write a GGUF file at ``path``, atomically: readers see the old file or the whole new one.

    Raises `ValueError` when the data of a tensor does not fit its shape, `OSError` as usual.
    """
    for tensor in tensors:
        if tensor.data is not None and len(tensor.data) != tensor.size_bytes:
            raise ValueError(
                f"tensor {tensor.name}: {len(tensor.data)} bytes of data,"
                f" {tensor.size_bytes} expected"
            )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _write(file, metadata, tensors)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
    alignment_bytes = _alignment_bytes(metadata)
    end = file.write(gguf_header(metadata, tensors))
    for tensor in tensors:
        if tensor.data is not None:
            file.seek(end)
            file.write(tensor.data)
        end += _padded(tensor.size_bytes, alignment_bytes)
    file.truncate(end)


def _alignment_bytes(metadata: Mapping[str, Value]) -> int:
    value = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT_BYTES)
    if not isinstance(value, int) or value <= 0 or value & (value - 1):
        raise ValueError(f"{ALIGNMENT_KEY} must be a power of two, not {value!r}")
    return value


def _padded(size_bytes: int, alignment_bytes: int) -> int:
    return -(-size_bytes // alignment_bytes) * alignment_bytes


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    match value:
        case Array(item_type, values):
            head = struct.pack("<IIQ", ValueType.ARRAY, item_type, len(values))
            if item_type is ValueType.STRING:
                return head + b"".join(_string(str(text)) for text in values)
            return head + struct.pack(f"<{len(values)}{STRUCT_CODES[item_type]}", *values)
        case Scalar(scalar_type, number):
            return struct.pack("<I" + STRUCT_CODES[scalar_type], scalar_type, number)
        case bool():
            return struct.pack("<I?", ValueType.BOOL, value)
        case int():
            return struct.pack("<II", ValueType.UINT32, value)
        case float():
            return struct.pack("<If", ValueType.FLOAT32, value)
        case str():
            return struct.pack("<I", ValueType.STRING) + _string(value)
