"""Headers of models that were never written."""

from collections.abc import Mapping

from llama_router.catalog.gguf_reader import GgufInfo
from llama_router.catalog.gguf_tensors import TensorBytes


def header(
    architecture: str = "llama",
    *,
    layers: int = 2,
    heads: int = 8,
    kv_heads: int | tuple[int, ...] = 8,
    context_length: int = 4096,
    embedding_length: int = 1024,
    key_length: int = 0,
    value_length: int = 0,
    window: int = 0,
    feed_forward_length: tuple[int, ...] = (4096,),
    experts: int = 0,
    vocabulary: int = 1000,
    tensors: TensorBytes | None = None,
    more: Mapping[str, int | tuple[int, ...]] | None = None,
    **parameters: int | tuple[int, ...],
) -> GgufInfo:
    """Make one; ``parameters``, and ``more`` of them, have "__" for the points of GGUF's keys."""
    tensors = tensors or TensorBytes()
    return GgufInfo(
        version=3,
        architecture=architecture,
        general_type="model",
        name="made up",
        quantization="",
        context_length=context_length,
        block_count=layers,
        embedding_length=embedding_length,
        feed_forward_length=feed_forward_length,
        head_count=(heads,) if heads else (),
        head_count_kv=kv_heads if isinstance(kv_heads, tuple) else (kv_heads,),
        key_length=key_length,
        value_length=value_length,
        sliding_window=window,
        expert_count=experts,
        vocab_size=vocabulary,
        has_chat_template=False,
        tensor_count=0,
        tensor_bytes=tensors.total,
        split_no=0,
        split_count=1,
        header_bytes=0,
        file_bytes=0,
        tensors=tensors,
        parameters={
            key.replace("__", "."): value if isinstance(value, tuple) else (value,)
            for key, value in {**(more or {}), **parameters}.items()
        },
    )
