"""Fuzzes the GGUF header reader: ``python -m tests.catalog.fuzz_gguf --iterations N --seed S``.

Each iteration makes a valid header, changes it where a header can lie (lengths, counts, types,
shapes, offsets) or anywhere, and reads it. Only GgufError may come of it, within 64 MiB and one
second of CPU time. It runs in child processes under a memory limit; Linux only. ``--only I``
repeats one iteration of a seed.
"""

import argparse
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llama_router.catalog.gguf_format import PARAMETER_KEYS, ValueType
from llama_router.catalog.gguf_reader import GgufError, read_gguf
from llama_router.catalog.gguf_writer import Array, Scalar, Tensor, Value, gguf_header
from llama_router.catalog.headers import header_of

MEMORY_MAX_BYTES = 64 << 20
CPU_MAX_S = 1.0
HANG_S = 5.0
CHUNK_COUNT = 50_000
EDGES = (
    *(0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 127, 128, 255, 256, 1023, 1024, 1025, 4095, 4096, 4097),
    *(65_535, 65_536, 65_537, 3_999_999, 4_000_000, 4_000_001, 2**24, 2**25, 2**25 + 1),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
TEXTS = ("", "a", "llama", "qwen3", "\x1b[31m", "\u202e", "日本", "x" * 300, "\0", "{{ m }}")
KEYS = (
    *("general.name", "general.type", "general.license", "general.tags", "general.file_type"),
    *("general.alignment", "general.base_model.0.repo_url", "general.languages", "split.no"),
    *("split.count", "split.tensors.count", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"),
    *("tokenizer.chat_template", "adapter.type"),
    *("clip.has_vision_encoder", "clip.has_audio_encoder"),
    *("llama.context_length", "llama.block_count", "llama.embedding_length", "llama.vocab_size"),
    *("llama.attention.head_count", "llama.attention.head_count_kv", "llama.expert_count"),
    *("llama.feed_forward_length", "llama.attention.sliding_window"),
    *(f"llama.{key}" for key in PARAMETER_KEYS),
)  # fmt: skip
NUMBERS = tuple(kind for kind in ValueType if kind not in (ValueType.STRING, ValueType.ARRAY))


class SlowError(Exception):
    """Reading has not come to an end."""


def randomness_of(seed: int, iteration: int) -> random.Random:
    return random.Random(f"{seed}:{iteration}")  # noqa: S311 - no secret


def number(randomness: random.Random, kind: ValueType) -> Any:  # noqa: ANN401
    if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        return randomness.choice((0.0, -1.5, float("inf"), float("nan")))
    if kind is ValueType.BOOL:
        return randomness.random() < 0.5
    bits = {"8": 8, "16": 16, "32": 32, "64": 64}[kind.name.lstrip("UINT")]
    signed = not kind.name.startswith("U")
    value = randomness.choice(EDGES) & ((1 << bits) - 1)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def value(randomness: random.Random) -> Value:
    pick = randomness.random()
    if pick < 0.35:
        return randomness.choice(TEXTS)
    kind = randomness.choice(NUMBERS)
    if pick < 0.65:
        return Scalar(kind, number(randomness, kind))
    count = randomness.choice((0, 1, 2, 5, 40, 127, 128, 129, 300))
    if pick < 0.85:
        return Array(ValueType.STRING, [randomness.choice(TEXTS) for _ in range(count)])
    return Array(kind, [number(randomness, kind)] * count)


def valid(randomness: random.Random) -> bytes:
    metadata: dict[str, Value] = {"general.architecture": randomness.choice(TEXTS[1:4])}
    for _ in range(randomness.randrange(8)):
        metadata[randomness.choice(KEYS)] = value(randomness)
    if randomness.random() < 0.9:
        metadata.pop("general.alignment", None)
    else:
        metadata["general.alignment"] = 1 << randomness.randrange(12)
    tensors = [
        Tensor(
            randomness.choice(("blk.0.ffn_up_exps.weight", "token_embd.weight", "blk.9999.x", "t")),
            tuple(randomness.choice((1, 2, 32, 256)) for _ in range(randomness.randrange(5))),
        )
        for _ in range(randomness.randrange(6))
    ]
    return gguf_header(metadata, tensors)


def mutate(randomness: random.Random, data: bytearray) -> None:
    for _ in range(randomness.choice((0, 1, 1, 1, 2, 3, 8))):
        size = len(data)
        # The first numbers, and those around a text's beginning, are what lies best.
        at = randomness.choice((randomness.randrange(24), randomness.randrange(size)))
        if randomness.random() < 0.5:
            word = randomness.choice((b"general.", b"llama.", b"token", b"blk.", b"split."))
            place = data.find(word, randomness.randrange(size))
            at = max(place + randomness.choice((-8, -4, 0, len(word))), 0) if place > 0 else at
        at = min(at, size - 1)
        how = randomness.random()
        if how < 0.35:
            data[at : at + 8] = struct.pack("<Q", randomness.choice(EDGES))
        elif how < 0.55:
            data[at : at + 4] = struct.pack("<I", randomness.choice(EDGES) & 0xFFFFFFFF)
        elif how < 0.75:
            data[at] = randomness.randrange(256)
        elif how < 0.85:
            del data[at : at + randomness.choice((1, 4, 8, 100, size))]
        elif how < 0.95:
            start = randomness.randrange(size)
            data[at:at] = data[start : start + randomness.choice((1, 8, 64, 512))]
        else:
            data[at:at] = randomness.randbytes(randomness.choice((1, 8, 100)))
        if not data:
            data += b"G"


def content(seed: int, iteration: int) -> tuple[bytes, int]:
    """Give the bytes of one iteration, and how long its file is: the rest is a hole."""
    randomness = randomness_of(seed, iteration)
    data = bytearray(valid(randomness))
    mutate(randomness, data)
    pick = randomness.random()
    if pick < 0.5:
        return bytes(data), len(data) + 4096
    if pick < 0.999:
        return bytes(data), len(data)
    return bytes(data), randomness.choice((1 << 22, 1 << 26, 1 << 40))


def read_one(seed: int, iteration: int, path: Path) -> str:
    """Read the file of one iteration; return what is wrong with how that went."""
    data, size = content(seed, iteration)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, data)
    os.ftruncate(descriptor, size)
    os.close(descriptor)
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    begin = time.process_time()
    try:
        header_of(read_gguf(path))
    except GgufError:
        pass
    except SlowError:
        return f"not done after {HANG_S:g} s"
    except BaseException as error:  # noqa: BLE001 - any of them is what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    took_s = time.process_time() - begin
    return f"took {took_s:.2f} s" if took_s > CPU_MAX_S else ""


def limit_memory() -> None:
    if not Path("/proc/self/statm").exists():
        return  # not Linux
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def child(seed: int, begin: int, end: int) -> int:
    """Do these iterations under the limits; print what was wrong."""

    def too_slow(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGPROF, too_slow)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-gguf-", dir=_memory_folder()) as folder:
        path = Path(folder, "f.gguf")
        # Whatever the reader makes once is not a file's doing.
        read_one(seed, begin, path)
        many = Array(ValueType.STRING, ["x"] * 300)
        path.write_bytes(gguf_header({"general.architecture": "llama", "a": many}, []))
        read_gguf(path)
        limit_memory()
        for iteration in range(begin, end):
            problem = read_one(seed, iteration, path)
            if problem:
                failed += 1
                print(f"seed={seed} iteration={iteration}: {problem}", flush=True)  # noqa: T201
    return 1 if failed else 0


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run(seed: int, iterations: int, chunk: int = CHUNK_COUNT, begin: int = 0) -> list[str]:
    """Do so many iterations in children; return what went wrong."""
    faults: list[str] = []
    started = time.monotonic()
    for start in range(begin, begin + iterations, chunk):
        end = min(start + chunk, begin + iterations)
        command = [sys.executable, "-m", "tests.catalog.fuzz_gguf", "--child"]
        command += [str(seed), str(start), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        faults += done.stdout.splitlines()
        if done.returncode and not done.stdout:
            faults.append(f"seed={seed} iterations {start} to {end}: ended with {done.returncode}")
            faults += done.stderr.splitlines()[-5:]
        rate = (end - begin) / (time.monotonic() - started)
        print(f"{end - begin} done, {rate:.0f}/s, {len(faults)} faults", file=sys.stderr)  # noqa: T201
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.catalog.fuzz_gguf", description=__doc__)
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, help="repeat this iteration and keep its file")
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed={seed}")  # noqa: T201 - to repeat a failure
    if options.only is not None:
        path = Path(tempfile.mkdtemp(prefix="fuzz-gguf-"), f"{seed}-{options.only}.gguf")
        data, size = content(seed, options.only)
        path.write_bytes(data)
        os.truncate(path, size)
        print(path)  # noqa: T201
        header_of(read_gguf(path))
        return 0
    faults = run(seed, options.iterations)
    print("\n".join(faults) or f"{options.iterations} iterations: no fault")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
