import os
import random
import secrets
import struct
import tracemalloc
from pathlib import Path

import gguf
import pytest

from llama_router.catalog.gguf_format import FILE_TYPE_NAMES, TENSOR_BLOCKS, ValueType
from llama_router.catalog.gguf_reader import GgufError, GgufInfo, read_gguf
from llama_router.catalog.gguf_writer import (
    Array,
    Scalar,
    Tensor,
    Value,
    gguf_header,
    write_gguf,
)
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_broken import Breakage, write_broken

MUTATIONS = 4000


def written(path: Path, metadata: dict[str, Value], tensors: list[Tensor]) -> GgufInfo:
    write_gguf(path, {"general.architecture": "llama"} | metadata, tensors)
    return read_gguf(path)


def test_reads_what_a_model_says_of_itself(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", "one two three", name="Counter", ctx=512)

    info = read_gguf(path)

    assert info.architecture == "llama"
    assert info.general_type == "model"
    assert info.name == "Counter"
    assert info.quantization == "F32"
    assert info.context_length == 512
    assert (info.block_count, info.head_count, info.head_count_kv) == (1, (4,), (1,))
    assert info.embedding_length == 128
    assert info.has_chat_template
    assert (info.split_no, info.split_count) == (0, 1)
    assert info.file_bytes == path.stat().st_size
    assert info.header_bytes < info.file_bytes - info.tensor_bytes + 32


def test_agrees_with_the_reference_reader(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", "one two three", name="Counter", pad_bytes=1 << 20)

    reference = gguf.GGUFReader(path)
    info = read_gguf(path)

    assert info.version == reference.fields["GGUF.version"].parts[-1][0]
    assert info.name == reference.fields["general.name"].contents()
    assert info.context_length == reference.fields["llama.context_length"].contents()
    assert info.expert_count == reference.fields["llama.expert_count"].contents()
    assert info.vocab_size == len(reference.fields["tokenizer.ggml.tokens"].contents())
    assert info.tensor_count == len(reference.tensors)
    assert info.tensor_bytes == sum(int(tensor.n_bytes) for tensor in reference.tensors)


def test_type_tables_agree_with_the_reference() -> None:
    for tensor_type in gguf.GGMLQuantizationType:
        assert TENSOR_BLOCKS[tensor_type] == gguf.GGML_QUANT_SIZES[tensor_type]
    for file_type in gguf.LlamaFileType:
        if file_type is not gguf.LlamaFileType.GUESSED:
            assert file_type.name.endswith(FILE_TYPE_NAMES[file_type])


def test_per_layer_heads_are_kept_and_equal_ones_collapse(tmp_path: Path) -> None:
    info = written(
        tmp_path / "m.gguf",
        {
            "llama.attention.head_count": Array(ValueType.INT32, [8, 8, 8]),
            "llama.attention.head_count_kv": Array(ValueType.UINT32, [8, 0, 4]),
        },
        [],
    )

    assert info.head_count == (8,)
    assert info.head_count_kv == (8, 0, 4)


def test_tensor_of_a_newer_type_does_not_make_a_file_invalid(tmp_path: Path) -> None:
    header = bytearray(gguf_header({"general.architecture": "llama"}, [Tensor("t", (32, 4))]))
    dimensions = struct.pack("<2Q", 32, 4)
    type_at = header.index(dimensions) + len(dimensions)
    header[type_at : type_at + 4] = struct.pack("<I", 250)
    path = tmp_path / "m.gguf"
    path.write_bytes(header)

    assert read_gguf(path).tensor_bytes == 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (Breakage.EMPTY, "not a GGUF file"),
        (Breakage.BAD_MAGIC, "not a GGUF file"),
        (Breakage.OLD_VERSION, "version 1"),
        (Breakage.FUTURE_VERSION, "version 99"),
        (Breakage.BIG_ENDIAN, "big-endian"),
        (Breakage.TRUNCATED_HEADER, "incomplete"),
        (Breakage.TRUNCATED_DATA, "incomplete"),
        (Breakage.HUGE_KEY_COUNT, "281474976710656 keys"),
        (Breakage.HUGE_TENSOR_COUNT, "281474976710656 tensors"),
        (Breakage.HUGE_STRING, "incomplete"),
        (Breakage.HUGE_ARRAY, "281474976710656 strings"),
        (Breakage.NESTED_ARRAYS, "array of arrays"),
        (Breakage.EMPTY_KEY, "a key is empty"),
        (Breakage.ZERO_DIMENSION, "dimension of 0"),
        (Breakage.OVERFLOWING_SHAPE, "incomplete"),
        (Breakage.OFFSET_PAST_END, "incomplete"),
    ],
)
def test_broken_file_is_refused_with_its_reason(tmp_path: Path, how: Breakage, reason: str) -> None:
    path = write_broken(tmp_path / "broken.gguf", how)

    with pytest.raises(GgufError, match=reason):
        read_gguf(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"general.architecture": 7},
        {"llama.context_length": "long"},
        {"llama.context_length": Scalar(ValueType.INT32, -1)},
        {"llama.block_count": 1.5},
        {"llama.attention.head_count": Array(ValueType.UINT8, [1] * 5000)},
        {"general.alignment": Scalar(ValueType.UINT64, 1 << 60)},
    ],
    ids=str,
)
def test_values_of_the_wrong_kind_are_refused(tmp_path: Path, metadata: dict[str, Value]) -> None:
    path = tmp_path / "m.gguf"
    tensor = Tensor("t", (32, 4))
    # The alignment of the writer is not the one that the header claims.
    head = gguf_header({"general.architecture": "llama", "x": 1}, [tensor])
    alignment = metadata.pop("general.alignment", None)
    if alignment is None:
        head = gguf_header({"general.architecture": "llama"} | metadata, [tensor])
    else:
        head = head.replace(
            struct.pack("<Q1sII", 1, b"x", ValueType.UINT32, 1),
            struct.pack("<Q17sIQ", 17, b"general.alignment", ValueType.UINT64, 1 << 60),
        )
    path.write_bytes(head + bytes(tensor.size_bytes))

    with pytest.raises(GgufError):
        read_gguf(path)


def test_missing_architecture_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"general.name": "x"}, [])

    with pytest.raises(GgufError, match=r"general\.architecture is missing"):
        read_gguf(tmp_path / "m.gguf")


def test_repeated_key_is_refused(tmp_path: Path) -> None:
    head = gguf_header({"general.architecture": "llama", "general.architecturX": "llama"}, [])
    (tmp_path / "m.gguf").write_bytes(head.replace(b"architecturX", b"architecture"))

    with pytest.raises(GgufError, match="occurs twice"):
        read_gguf(tmp_path / "m.gguf")


def test_whatever_is_no_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")

    for path in (tmp_path / "fifo.gguf", tmp_path, Path(os.devnull)):
        with pytest.raises(GgufError, match="not a regular file"):
            read_gguf(path)
    with pytest.raises(GgufError, match="cannot be read"):
        read_gguf(tmp_path / "missing.gguf")


def test_large_tokenizer_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    words = [f"word{number}" for number in range(150_000)]
    write_gguf(
        path,
        {
            "general.architecture": "qwen3",
            "tokenizer.ggml.tokens": Array(ValueType.STRING, words),
            "tokenizer.ggml.scores": Array(ValueType.FLOAT32, [0.0] * len(words)),
            "tokenizer.ggml.merges": Array(ValueType.STRING, words),
            "tokenizer.chat_template": "{{ messages }}",
        },
        [Tensor("large", (1 << 20, 1 << 10))],
    )

    tracemalloc.start()
    info = read_gguf(path)
    _current, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert info.vocab_size == len(words)
    assert info.has_chat_template
    assert info.tensor_bytes == 4 << 30
    assert peak_bytes < 16 << 20


def test_header_without_end_is_given_up_early(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    strings = 3_000_000
    head = gguf_header({"general.architecture": "llama"}, []).rstrip(b"\0")
    head = head.replace(struct.pack("<Q", 1), struct.pack("<Q", 2), 1)
    array = struct.pack("<Q1sIIQ", 1, b"k", ValueType.ARRAY, ValueType.STRING, strings)
    path.write_bytes(head + array + struct.pack("<Q", 1 << 40))
    os.truncate(path, 1 << 42)

    with pytest.raises(GgufError, match="larger than 24 MiB"):
        read_gguf(path)


def test_mutated_headers_raise_nothing_but_the_readers_own_error(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)  # noqa: T201 - to repeat a failure
    randomness = random.Random(seed)  # noqa: S311 - no secret
    (model,) = write_model(tmp_path / "m.gguf", "one two three", name="Counter")
    valid = model.read_bytes()
    header_bytes = read_gguf(model).header_bytes
    mutant = tmp_path / "mutant.gguf"
    edges = [0, 1, 2**16, 2**31, 2**32 - 1, 2**48, 2**63, 2**64 - 1]
    refused = 0

    for _ in range(MUTATIONS):
        data = bytearray(valid)
        for _ in range(randomness.randint(1, 3)):
            # Most of a header is the vocabulary; its ends hold everything else.
            at = randomness.choice(
                [randomness.randrange(24), randomness.randrange(header_bytes), header_bytes - 1]
            )
            if randomness.random() < 0.5:
                data[at] = randomness.randrange(256)
            else:
                data[at : at + 8] = struct.pack("<Q", randomness.choice(edges))
        if randomness.random() < 0.2:
            del data[randomness.randrange(len(data)) :]
        mutant.write_bytes(data)
        try:
            read_gguf(mutant)
        except GgufError:
            refused += 1

    assert refused > MUTATIONS // 4


@pytest.mark.parametrize("seed", range(5))
def test_strings_of_all_lengths_are_stepped_over_exactly(tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)  # noqa: S311 - no secret
    lengths = [0, 1, 127, 128, 255, 256, 257, 70_000, *range(40)]
    letters = ["\0", "\1", "x"]  # what could be taken for a length
    strings = [
        randomness.choice(letters) * (randomness.choice(lengths) if not number % 97 else number % 9)
        for number in range(20_000)
    ]
    metadata: dict[str, Value] = {
        "tokenizer.ggml.tokens": Array(ValueType.STRING, strings),
        "llama.context_length": 77,
    }

    info = written(tmp_path / "m.gguf", metadata, [Tensor("t", (32, 4))])

    assert (info.vocab_size, info.context_length, info.tensor_bytes) == (20_000, 77, 512)
