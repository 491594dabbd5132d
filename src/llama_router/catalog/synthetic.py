"""Models of any shape with weights of zero, to see how much memory an engine takes for them.

They take hardly any disk space (zeros are holes in the file) and say nothing sensible. Source of
the tensors' names and shapes: ``load_arch_tensors`` in ``src/models/`` of llama.cpp.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_router.catalog.gguf_format import ValueType
from llama_router.catalog.gguf_writer import Array, Scalar, Tensor, Value, write_gguf

_BYTE_TOKENS = 256
_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
# llama_token_type of llama.h.
_TOKEN_NORMAL, _TOKEN_UNKNOWN, _TOKEN_CONTROL, _TOKEN_BYTE = 1, 2, 3, 6
MIN_VOCABULARY = len(_SPECIAL_TOKENS) + _BYTE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a model is built; the names are those of GGUF's keys.

    ``kv_heads`` counts for all layers, or is one number per layer. ``key_length`` 0 is the
    embedding's length by the heads; ``value_length`` 0 is the key's. ``kv_lora_rank``: for
    "deepseek2", the length of the latent, whose ``rope_length`` more values are position;
    ``key_length`` and ``value_length`` are then those of a head. ``state_size`` and
    ``conv_kernel``: for "mamba", whose inner length is twice the embedding's. ``experts``: for
    "llama"; each has the ``feed_forward_length``.
    """

    architecture: str = "llama"
    layers: int = 2
    embedding_length: int = 64
    heads: int = 2
    kv_heads: int | tuple[int, ...] = 2
    key_length: int = 0
    value_length: int = 0
    feed_forward_length: int = 64
    vocabulary: int = MIN_VOCABULARY
    context_length: int = 4096
    sliding_window: int = 0
    kv_lora_rank: int = 0
    rope_length: int = 64
    state_size: int = 16
    conv_kernel: int = 4
    experts: int = 0
    experts_used: int = 0
    has_output: bool = True

    @property
    def head_length(self) -> int:
        """Length of a head's key."""
        return self.key_length or self.embedding_length // self.heads

    def kv_heads_of(self, layer: int) -> int:
        """How many heads of keys and values a layer has."""
        return self.kv_heads if isinstance(self.kv_heads, int) else self.kv_heads[layer]


def write_synthetic(path: Path, shape: Shape) -> Path:
    """Write a model of that shape and return its path.

    Architectures: "llama", "qwen3", "gemma3", "deepseek2" (all layers dense) and "mamba".
    Raises `ValueError` for others and for impossible shapes.
    """
    if shape.vocabulary < MIN_VOCABULARY:
        raise ValueError(f"a vocabulary has at least {MIN_VOCABULARY} tokens")
    block = _BLOCKS.get(shape.architecture)
    if block is None:
        raise ValueError(f"no synthetic models of the architecture {shape.architecture!r}")
    length = shape.embedding_length
    tensors = [
        Tensor("token_embd.weight", (length, shape.vocabulary)),
        _ones("output_norm.weight", length),
    ]
    if shape.has_output:
        tensors.append(Tensor("output.weight", (length, shape.vocabulary)))
    for layer in range(shape.layers):
        tensors += block(shape, f"blk.{layer}.", layer)
    write_gguf(path, _metadata(shape), tensors)
    return path


def _ones(name: str, length: int) -> Tensor:
    return Tensor(name, (length,), struct.pack("<f", 1.0) * length)


def _feed_forward(shape: Shape, prefix: str) -> list[Tensor]:
    length, inner = shape.embedding_length, shape.feed_forward_length
    if shape.experts:
        return [
            _ones(prefix + "ffn_norm.weight", length),
            Tensor(prefix + "ffn_gate_inp.weight", (length, shape.experts)),
            Tensor(prefix + "ffn_gate_exps.weight", (length, inner, shape.experts)),
            Tensor(prefix + "ffn_down_exps.weight", (inner, length, shape.experts)),
            Tensor(prefix + "ffn_up_exps.weight", (length, inner, shape.experts)),
        ]
    return [
        _ones(prefix + "ffn_norm.weight", length),
        Tensor(prefix + "ffn_gate.weight", (length, inner)),
        Tensor(prefix + "ffn_up.weight", (length, inner)),
        Tensor(prefix + "ffn_down.weight", (inner, length)),
    ]


def _attention_block(shape: Shape, prefix: str, layer: int) -> list[Tensor]:
    length, key_length = shape.embedding_length, shape.head_length
    value_length = shape.value_length or key_length
    kv_heads = shape.kv_heads_of(layer)
    tensors = [
        _ones(prefix + "attn_norm.weight", length),
        Tensor(prefix + "attn_q.weight", (length, shape.heads * key_length)),
        Tensor(prefix + "attn_k.weight", (length, kv_heads * key_length)),
        Tensor(prefix + "attn_v.weight", (length, kv_heads * value_length)),
        Tensor(prefix + "attn_output.weight", (shape.heads * value_length, length)),
        *_feed_forward(shape, prefix),
    ]
    if shape.architecture in ("qwen3", "gemma3"):
        tensors += [_ones(f"{prefix}attn_{part}_norm.weight", key_length) for part in "qk"]
    if shape.architecture == "gemma3":
        names = ("post_attention_norm", "post_ffw_norm")
        tensors += [_ones(f"{prefix}{name}.weight", length) for name in names]
    return tensors


def _latent_block(shape: Shape, prefix: str, _layer: int) -> list[Tensor]:
    length, rank, heads = shape.embedding_length, shape.kv_lora_rank, shape.heads
    position_free = shape.head_length - shape.rope_length
    value_length = shape.value_length or shape.head_length
    return [
        _ones(prefix + "attn_norm.weight", length),
        _ones(prefix + "attn_kv_a_norm.weight", rank),
        Tensor(prefix + "attn_q_a.weight", (length, length)),
        _ones(prefix + "attn_q_a_norm.weight", length),
        Tensor(prefix + "attn_q_b.weight", (length, heads * shape.head_length)),
        Tensor(prefix + "attn_kv_a_mqa.weight", (length, rank + shape.rope_length)),
        Tensor(prefix + "attn_k_b.weight", (position_free, rank, heads)),
        Tensor(prefix + "attn_v_b.weight", (rank, value_length, heads)),
        Tensor(prefix + "attn_output.weight", (heads * value_length, length)),
        *_feed_forward(shape, prefix),
    ]


def _state_space_block(shape: Shape, prefix: str, _layer: int) -> list[Tensor]:
    length, state = shape.embedding_length, shape.state_size
    inner, rank = 2 * length, max(1, length // 16)
    return [
        _ones(prefix + "attn_norm.weight", length),
        Tensor(prefix + "ssm_in.weight", (length, 2 * inner)),
        Tensor(prefix + "ssm_conv1d.weight", (shape.conv_kernel, inner)),
        Tensor(prefix + "ssm_conv1d.bias", (inner,)),
        Tensor(prefix + "ssm_x.weight", (inner, rank + 2 * state)),
        Tensor(prefix + "ssm_dt.weight", (rank, inner)),
        Tensor(prefix + "ssm_dt.bias", (inner,)),
        Tensor(prefix + "ssm_a", (state, inner)),
        Tensor(prefix + "ssm_d", (inner,)),
        Tensor(prefix + "ssm_out.weight", (inner, length)),
    ]


_BLOCKS: dict[str, Callable[[Shape, str, int], list[Tensor]]] = {
    "llama": _attention_block,
    "qwen3": _attention_block,
    "gemma3": _attention_block,
    "deepseek2": _latent_block,
    "mamba": _state_space_block,
}


def _metadata(shape: Shape) -> dict[str, Value]:
    architecture = shape.architecture
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": "synthetic",
        "general.file_type": 0,  # all F32
    }
    keys: dict[str, Value] = {
        "context_length": shape.context_length,
        "embedding_length": shape.embedding_length,
        "block_count": shape.layers,
        "feed_forward_length": shape.feed_forward_length,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": shape.vocabulary,
    }
    if architecture == "mamba":
        inner = 2 * shape.embedding_length
        keys |= {
            "attention.head_count": 0,
            "ssm.conv_kernel": shape.conv_kernel,
            "ssm.inner_size": inner,
            "ssm.state_size": shape.state_size,
            "ssm.time_step_rank": max(1, shape.embedding_length // 16),
        }
    else:
        keys |= _attention_keys(shape)
    if shape.experts:
        keys |= {"expert_count": shape.experts, "expert_used_count": shape.experts_used}
    metadata |= {f"{architecture}.{key}": value for key, value in keys.items()}
    return metadata | _tokenizer(shape.vocabulary)


def _attention_keys(shape: Shape) -> dict[str, Value]:
    keys: dict[str, Value] = {"attention.head_count": shape.heads}
    if shape.kv_lora_rank:
        return keys | {
            "attention.head_count_kv": 1,
            "attention.key_length": shape.kv_lora_rank + shape.rope_length,
            "attention.value_length": shape.kv_lora_rank,
            "attention.key_length_mla": shape.head_length,
            "attention.value_length_mla": shape.value_length or shape.head_length,
            "attention.kv_lora_rank": shape.kv_lora_rank,
            "attention.q_lora_rank": shape.embedding_length,
            "rope.dimension_count": shape.rope_length,
            "leading_dense_block_count": shape.layers,
            "expert_feed_forward_length": shape.feed_forward_length,
            "expert_shared_count": 0,
            "expert_weights_scale": 1.0,
        }
    if isinstance(shape.kv_heads, int):
        keys["attention.head_count_kv"] = shape.kv_heads
    else:
        keys["attention.head_count_kv"] = Array(ValueType.INT32, shape.kv_heads)
    keys["rope.dimension_count"] = shape.head_length
    keys["attention.key_length"] = shape.head_length
    keys["attention.value_length"] = shape.value_length or shape.head_length
    if shape.sliding_window:
        keys["attention.sliding_window"] = shape.sliding_window
    return keys


def _tokenizer(count: int) -> dict[str, Value]:
    others = count - MIN_VOCABULARY
    tokens = [*_SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(_BYTE_TOKENS))]
    tokens += [f"w{number}" for number in range(others)]
    types = [_TOKEN_UNKNOWN, *[_TOKEN_CONTROL] * (len(_SPECIAL_TOKENS) - 1)]
    types += [_TOKEN_BYTE] * _BYTE_TOKENS + [_TOKEN_NORMAL] * others
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": Array(ValueType.STRING, tokens),
        "tokenizer.ggml.scores": Array(ValueType.FLOAT32, [0.0] * count),
        "tokenizer.ggml.token_type": Array(ValueType.INT32, types),
        "tokenizer.ggml.unknown_token_id": Scalar(ValueType.UINT32, 0),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorShape:
    """How a vision projector is built. Pictures are squares of ``image_pixels`` to an edge."""

    layers: int = 2
    embedding_length: int = 64
    feed_forward_length: int = 128
    heads: int = 2
    image_pixels: int = 384
    patch_pixels: int = 16
    model_embedding_length: int = 64


def write_synthetic_projector(path: Path, shape: ProjectorShape) -> Path:
    """Write a projector ("janus_pro") of that shape for a model and return its path."""
    length, inner = shape.embedding_length, shape.feed_forward_length
    patch, patches = shape.patch_pixels, (shape.image_pixels // shape.patch_pixels) ** 2
    tensors = [
        Tensor("v.patch_embd.weight", (patch, patch, 3, length)),
        Tensor("v.position_embd.weight", (length, patches)),
        Tensor("mm.0.weight", (length, length)),
        Tensor("mm.0.bias", (length,)),
        Tensor("mm.1.weight", (length, shape.model_embedding_length)),
        Tensor("mm.1.bias", (shape.model_embedding_length,)),
    ]
    for layer in range(shape.layers):
        prefix = f"v.blk.{layer}."
        tensors += [_ones(f"{prefix}ln{part}.weight", length) for part in (1, 2)]
        tensors += [Tensor(f"{prefix}ln{part}.bias", (length,)) for part in (1, 2)]
        parts = ("attn_q", "attn_k", "attn_v", "attn_out")
        tensors += [Tensor(f"{prefix}{part}.weight", (length, length)) for part in parts]
        tensors += [
            Tensor(prefix + "ffn_up.weight", (length, inner)),
            Tensor(prefix + "ffn_down.weight", (inner, length)),
        ]
    metadata: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "Synthetic projector",
        "general.file_type": 0,  # all F32
        "clip.has_vision_encoder": True,
        "clip.projector_type": "janus_pro",
        "clip.use_gelu": True,
        "clip.vision.image_size": shape.image_pixels,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": length,
        "clip.vision.feed_forward_length": inner,
        "clip.vision.projection_dim": shape.model_embedding_length,
        "clip.vision.block_count": shape.layers,
        "clip.vision.attention.head_count": shape.heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": Array(ValueType.FLOAT32, [0.5] * 3),
        "clip.vision.image_std": Array(ValueType.FLOAT32, [0.5] * 3),
    }
    write_gguf(path, metadata, tensors)
    return path
