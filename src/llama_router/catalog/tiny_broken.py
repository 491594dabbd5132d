"""Broken GGUF files, each broken in one way, for tests of whatever reads or loads models."""

import struct
from enum import StrEnum
from pathlib import Path

from llama_router.catalog.gguf_format import MAGIC, ValueType
from llama_router.catalog.gguf_writer import Tensor, Value, gguf_header

_HUGE = 1 << 48
_METADATA: dict[str, Value] = {"general.architecture": "llama", "llama.context_length": 128}
_TENSORS = (Tensor("token_embd.weight", (32, 4)),)


class Breakage(StrEnum):
    """The ways in which a file can be broken."""

    EMPTY = "empty"
    BAD_MAGIC = "bad_magic"
    OLD_VERSION = "old_version"
    FUTURE_VERSION = "future_version"
    BIG_ENDIAN = "big_endian"
    TRUNCATED_HEADER = "truncated_header"
    TRUNCATED_DATA = "truncated_data"
    HUGE_KEY_COUNT = "huge_key_count"
    HUGE_TENSOR_COUNT = "huge_tensor_count"
    HUGE_STRING = "huge_string"
    HUGE_ARRAY = "huge_array"
    NESTED_ARRAYS = "nested_arrays"
    EMPTY_KEY = "empty_key"
    ZERO_DIMENSION = "zero_dimension"
    OVERFLOWING_SHAPE = "overflowing_shape"
    OFFSET_PAST_END = "offset_past_end"


def write_broken(path: Path, how: Breakage) -> Path:
    """Write a file broken in that way and return its path."""
    path.write_bytes(broken_bytes(how))
    return path


def broken_bytes(how: Breakage) -> bytes:
    """Content of a file broken in that way."""
    header = gguf_header(_METADATA, _TENSORS)
    data = bytes(_TENSORS[0].size_bytes)
    hole = Tensor("hole", (1 << 20, 1 << 10))
    key = _start(keys=1) + struct.pack("<Q", 1) + b"k"
    array_tag = struct.pack("<I", ValueType.ARRAY)
    contents = {
        Breakage.EMPTY: b"",
        Breakage.BAD_MAGIC: b"GGML" + header[len(MAGIC) :] + data,
        Breakage.OLD_VERSION: _start(version=1),
        Breakage.FUTURE_VERSION: _start(version=99),
        Breakage.BIG_ENDIAN: MAGIC + struct.pack(">IQQ", 3, 0, 0),
        Breakage.TRUNCATED_HEADER: header[: len(header) // 2],
        Breakage.TRUNCATED_DATA: header + data[: len(data) // 2],
        Breakage.HUGE_KEY_COUNT: _start(keys=_HUGE),
        Breakage.HUGE_TENSOR_COUNT: _start(tensors=_HUGE),
        Breakage.HUGE_STRING: key + struct.pack("<IQ", ValueType.STRING, _HUGE),
        Breakage.HUGE_ARRAY: key + array_tag + struct.pack("<IQ", ValueType.STRING, _HUGE),
        Breakage.NESTED_ARRAYS: key + array_tag + struct.pack("<IQ", ValueType.ARRAY, 1) * 1000,
        Breakage.EMPTY_KEY: _start(keys=1) + struct.pack("<QI?", 0, ValueType.BOOL, True),
        Breakage.ZERO_DIMENSION: gguf_header(_METADATA, [Tensor("t", (32, 0))]) + data,
        Breakage.OVERFLOWING_SHAPE: (
            gguf_header(_METADATA, [Tensor("t", (1 << 40, 1 << 20))]) + data
        ),
        Breakage.OFFSET_PAST_END: gguf_header(_METADATA, [hole, *_TENSORS]) + data,
    }
    return contents[how]


def _start(*, version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return MAGIC + struct.pack("<IQQ", version, tensors, keys)
