"""Estimates of headers that somebody has tampered with, or that chance has."""

import random
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from llama_router.catalog.footprint import Footprint, Machine, expect
from llama_router.catalog.footprint_arguments import ArgumentsError
from llama_router.catalog.footprint_placement import Gpu
from llama_router.catalog.gguf_format import PARAMETER_KEYS, ValueType
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.gguf_writer import Array, Scalar, Tensor, Value, write_gguf
from llama_router.catalog.synthetic import Shape, write_synthetic

MUTATIONS = 200
MOST_CPU_S = 1.0  # of one estimate; the slowest seen took 0.1 s
MOST_BYTES = 64 * 2**20
TRACED = 20  # every so many: it makes them slow
SHAPES = (
    Shape(),
    Shape(architecture="gemma3", layers=7, sliding_window=512),
    Shape(architecture="deepseek2", kv_lora_rank=64, key_length=128, value_length=64),
    Shape(architecture="mamba"),
    Shape(experts=8, experts_used=2),
)
EDGES = (0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
ARCHITECTURES = ("llama", "gemma3", "gemma3n", "exaone4", "qwen3next", "nemotron_h", "rwkv7", "x")
KEYS = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "expert_count",
    "vocab_size",
    *PARAMETER_KEYS,
)
ARGUMENTS = (
    "",
    "-c 4096 -np 3",
    "-c 2147483647 -np 256 -ub 0 --swa-full",
    "--fit off -ngl 7 -ts 1,0,2 -ncmoe 3 -ot .*=CPU",
    "-c 0 -fa off -ctk q4_0 -sm none -mg 9",
    "--spec-type draft-mtp --embeddings -cram -1",
)
MACHINE = Machine(2**34, (Gpu("cuda0", 2**33), Gpu("cuda1", 2**31)))


def tampered(folder: Path, randomness: random.Random) -> Iterator[Path]:
    """Write one file after the other: bytes of a good one changed, or its numbers made up."""
    goods = [
        write_synthetic(folder / f"{number}.gguf", shape) for number, shape in enumerate(SHAPES)
    ]
    path = folder / "tampered.gguf"
    for number in range(MUTATIONS):
        if number % 2:
            made_up(path, randomness)
        else:
            changed(path, randomness.choice(goods), randomness)
        yield path


def changed(path: Path, good: Path, randomness: random.Random) -> None:
    data = bytearray(good.read_bytes())
    head = data.index(b"tokenizer.ggml.model")
    for _ in range(randomness.randint(1, 4)):
        at = randomness.randrange(head)
        if randomness.random() < 0.5:
            data[at] = randomness.randrange(256)
        else:
            data[at : at + 8] = struct.pack("<Q", randomness.choice(EDGES))
    path.write_bytes(data)


def made_up(path: Path, randomness: random.Random) -> None:
    architecture = randomness.choice(ARCHITECTURES)
    metadata: dict[str, Value] = {"general.architecture": architecture}
    for key in KEYS:
        if randomness.random() < 0.6:
            number = Scalar(ValueType.UINT64, randomness.choice(EDGES))
            numbers = Array(ValueType.UINT32, [randomness.choice(EDGES[:8]) for _ in range(5)])
            metadata[f"{architecture}.{key}"] = numbers if randomness.random() < 0.2 else number
    names = ("blk.511.x", "blk.0.ffn_up_exps.weight", "token_embd.weight", "output.weight")
    write_gguf(path, metadata, [Tensor(name, (32,)) for name in names])


def test_tampered_headers_give_a_number_or_a_reason_soon_and_in_little_memory(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    randomness = random.Random(seed)  # noqa: S311 - no secret
    estimated = 0
    for number, path in enumerate(tampered(tmp_path, randomness)):
        arguments = randomness.choice(ARGUMENTS).split()
        what = (seed, number, arguments)
        found = measured(path, arguments, what, is_traced=number % TRACED < 2)
        if found is None:
            continue
        estimated += 1
        for need in found.needs:
            assert need.total >= 0, what
            assert need.kept_prompts >= 0, what
        assert found.may_grow_bytes >= 0, what
    # Otherwise nothing was looked at but the reader.
    assert estimated > MUTATIONS // 4


def measured(
    path: Path, arguments: list[str], what: object, *, is_traced: bool
) -> Footprint | None:
    """Estimate it within bounds of time, or of memory; None when the file is refused."""
    if is_traced:
        tracemalloc.start()
    began = time.process_time()
    try:
        return expect(path, arguments, machine=MACHINE)
    except GgufError:
        return None
    finally:
        took_s = time.process_time() - began
        if is_traced:
            _now, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak_bytes < MOST_BYTES, what
        else:
            assert took_s < MOST_CPU_S, what


OPTIONS = "-c -np -b -ub -ngl -ts -ot -ncmoe -ncffn -cram -ctxcp -fa --fit -dev -mg -ctk -fitt"
VALUES = "0 -1 1 1.5 1,2 nan,inf ,,, =,= x=CPU (=CPU auto none \u0664 1e400 \udcff 2147483647"


def test_any_text_is_a_command_line_or_is_refused(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    randomness = random.Random(seed)  # noqa: S311 - no secret
    options, values = OPTIONS.split(), [*VALUES.split(), "", "9" * 5000]
    path = write_synthetic(tmp_path / "m.gguf", Shape())
    refused = 0
    for _ in range(MUTATIONS):
        argv = []
        for _ in range(randomness.randrange(4)):
            argv += [randomness.choice(options), randomness.choice(values)]
        try:
            assert expect(path, argv, machine=MACHINE).total > 0, (seed, argv)
        except ArgumentsError:
            refused += 1
    assert 0 < refused < MUTATIONS
