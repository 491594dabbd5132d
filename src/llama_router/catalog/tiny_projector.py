"""A tiny vision projector ("mmproj") that llama.cpp loads and runs beside a tiny model.

Its weights are zero: every picture becomes four embeddings of zeros. Source of the names:
``tools/mtmd/clip-impl.h`` and ``clip.cpp`` of llama.cpp, projector type "janus_pro", which
needs no special tokens in the model's vocabulary.
"""

import struct
from pathlib import Path

from llama_router.catalog.gguf_format import ValueType
from llama_router.catalog.gguf_writer import Array, Tensor, Value, write_gguf

_IMAGE_PIXELS = 32  # edge of the square picture
_PATCH_PIXELS = 16
_EMBEDDING_LENGTH = 32


def write_projector(path: Path, *, model_embedding_length: int = 128) -> Path:
    """Write a projector for a model of that embedding length and return its path.

    Tiny models have 128 unless their text has more than 126 different tokens; llama.cpp refuses a
    projector whose length differs from the model's.
    """
    length = _EMBEDDING_LENGTH
    patches = (_IMAGE_PIXELS // _PATCH_PIXELS) ** 2
    ones = struct.pack("<f", 1.0) * length
    tensors = [
        Tensor("v.patch_embd.weight", (_PATCH_PIXELS, _PATCH_PIXELS, 3, length)),
        Tensor("v.position_embd.weight", (length, patches)),
        Tensor("v.blk.0.ln1.weight", (length,), ones),
        Tensor("v.blk.0.ln1.bias", (length,)),
        Tensor("v.blk.0.ln2.weight", (length,), ones),
        Tensor("v.blk.0.ln2.bias", (length,)),
        *(
            Tensor(f"v.blk.0.{part}.weight", (length, length))
            for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
        ),
        Tensor("mm.0.weight", (length, length)),
        Tensor("mm.0.bias", (length,)),
        Tensor("mm.1.weight", (length, model_embedding_length)),
        Tensor("mm.1.bias", (model_embedding_length,)),
    ]
    metadata: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "Tiny projector",
        "general.file_type": 0,  # all F32
        "clip.has_vision_encoder": True,
        "clip.projector_type": "janus_pro",
        "clip.use_gelu": True,
        "clip.vision.image_size": _IMAGE_PIXELS,
        "clip.vision.patch_size": _PATCH_PIXELS,
        "clip.vision.embedding_length": length,
        "clip.vision.feed_forward_length": length,
        "clip.vision.projection_dim": model_embedding_length,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": 1,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": Array(ValueType.FLOAT32, [0.5, 0.5, 0.5]),
        "clip.vision.image_std": Array(ValueType.FLOAT32, [0.5, 0.5, 0.5]),
    }
    write_gguf(path, metadata, tensors)
    return path
