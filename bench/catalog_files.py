"""Ten thousand models for `python -m bench.catalog`: real headers, and holes for weights."""

import os
from pathlib import Path

from llama_router.catalog.gguf_format import ValueType
from llama_router.catalog.gguf_writer import Array, Scalar, Tensor, Value, gguf_header

LARGE_TOKENS = 150_000
_SMALL_TOKENS = 300
_FILES_PER_FOLDER = 100
_NAME = "model 00000"
_LAYERS = {False: 24, True: 64}


def make(folder: Path, small_count: int, large_count: int) -> tuple[list[Path], list[Path]]:
    """Write so many models of each kind into subfolders; return the small and the large ones."""
    header = {is_large: _header(is_large=is_large) for is_large in (False, True)}
    small: list[Path] = []
    large: list[Path] = []
    for number in range(small_count + large_count):
        is_large = number < large_count
        content, weight_bytes = header[is_large]
        author = folder / f"author-{number // _FILES_PER_FOLDER:03d}"
        author.mkdir(parents=True, exist_ok=True)
        path = author / f"{'large' if is_large else 'small'}-{number:05d}-Q4_K_M.gguf"
        named = content.replace(_NAME.encode(), f"model {number:05d}".encode(), 1)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, named)
            os.ftruncate(descriptor, len(named) + weight_bytes)
        finally:
            os.close(descriptor)
        (large if is_large else small).append(path)
    return small, large


def _header(*, is_large: bool) -> tuple[bytes, int]:
    """Give a header, and how many bytes of weights it names."""
    count = LARGE_TOKENS if is_large else _SMALL_TOKENS
    # Of the length that tokens and merges of Qwen have on average.
    tokens = [f"tok{number:06d}"[: 4 + number % 6] + str(number) for number in range(count)]
    metadata: dict[str, Value] = {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.name": _NAME,
        "general.file_type": 0,
        "general.license": "apache-2.0",
        "general.tags": Array(ValueType.STRING, ["text-generation", "chat"]),
        "general.base_model.0.repo_url": "https://huggingface.co/org/base",
        "qwen3.block_count": _LAYERS[is_large],
        "qwen3.context_length": 40960,
        "qwen3.embedding_length": 1024,
        "qwen3.feed_forward_length": 3072,
        "qwen3.attention.head_count": 16,
        "qwen3.attention.head_count_kv": 8,
        "qwen3.attention.key_length": 128,
        "qwen3.attention.value_length": 128,
        "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": Array(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": Array(ValueType.INT32, [1] * count),
        "tokenizer.ggml.merges": Array(ValueType.STRING, [f"{t[:3]} {t[3:]}" for t in tokens]),
        "tokenizer.ggml.eos_token_id": Scalar(ValueType.UINT32, 1),
        "tokenizer.chat_template": "{% for message in messages %}{{ message }}{% endfor %}" * 60,
    }
    tensors = [Tensor("token_embd.weight", (1024, count)), Tensor("output_norm.weight", (1024,))]
    for layer in range(_LAYERS[is_large]):
        prefix = f"blk.{layer}."
        for name, shape in (
            ("attn_norm", (1024,)),
            ("attn_q", (1024, 2048)),
            ("attn_k", (1024, 1024)),
            ("attn_v", (1024, 1024)),
            ("attn_q_norm", (128,)),
            ("attn_k_norm", (128,)),
            ("attn_output", (2048, 1024)),
            ("ffn_norm", (1024,)),
            ("ffn_gate", (1024, 3072)),
            ("ffn_up", (1024, 3072)),
            ("ffn_down", (3072, 1024)),
        ):
            tensors.append(Tensor(f"{prefix}{name}.weight", shape))
    return gguf_header(metadata, tensors), sum(tensor.size_bytes for tensor in tensors)
