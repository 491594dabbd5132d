"""Tiny models that say a given text: valid for llama.cpp, made in milliseconds, no downloads.

How such a model speaks. Its text is cut into tokens, each different from all others (a word that
occurs twice is joined with the word after it until it is unique), so that a token determines its
successor. Attention and feed-forward weights are zero: the residual stream that reaches the output
layer is the embedding of the last token. The embeddings of the text's tokens are rows of a Hadamard
matrix, hence exactly orthogonal, and the output row of a token is the scaled embedding of its
predecessor: the successor's logit is high above all others, which are zero. Sampling at any usual
temperature says the same words. Every token that is not in the text (bytes, special tokens) leads
to the first word; a completion prompt that ends in a word of the text goes on from there.
"""

import re
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_router.catalog.gguf_format import ValueType
from llama_router.catalog.gguf_writer import Array, Scalar, Tensor, Value, write_gguf

DEFAULT_CTX_TOKENS = 8192

_MIN_EMBEDDING_LENGTH = 128
_MAX_EMBEDDING_LENGTH = 1024  # at which a model has about 10 MB
_HEAD_LENGTH = 32  # the smallest that suits every type of KV cache
_FFN_LENGTH = 32
_MAX_PAD_EXPERTS = 256  # llama.cpp allows 512

_SUCCESSOR_LOGIT = 120.0  # exp(-gap / temperature) vanishes up to temperatures of about 5
_LOOP_SHARE = 0.5  # of that: the text starts over where the end token is forbidden (ignore_eos)
_IDENTITY_SHARE = 0.25  # of an embedding: what tells tokens outside the text apart

_NORMAL_END = "</s>"
_SPECIAL_TOKENS = ("<unk>", "<s>", _NORMAL_END, "<|im_start|>", "<|im_end|>")
_BYTE_COUNT = 256
_LOOP_SEPARATOR = "\n"

# llama_token_type of llama.h. The words are "user defined": they are found in a prompt as they
# stand and need no merge rules.
_TOKEN_UNKNOWN, _TOKEN_CONTROL, _TOKEN_USER_DEFINED, _TOKEN_BYTE = 2, 3, 4, 6
_POOLING_MEAN = 1

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(
    path: Path,
    text: str,
    *,
    name: str,
    endless: bool = False,
    ctx: int = DEFAULT_CTX_TOKENS,
    pad_bytes: int = 0,
    split: int = 1,
    chat_template: str | None = CHAT_TEMPLATE,
) -> list[Path]:
    """Write a model that answers every chat with ``text``; return its files, first part first.

    ``endless`` starts over on a new line instead of ending. ``ctx`` is the trained context length
    in tokens. ``pad_bytes`` adds about that many bytes of zero weights that are read on loading but
    hardly cost time when it speaks (experts of which one is used); they take no disk space.
    ``split`` > 1 writes so many parts under llama.cpp's names: ``x.gguf`` becomes
    ``x-00001-of-00003.gguf`` and so on. The same arguments give the same bytes.

    Raises `ValueError` for a text that is empty or too long, or impossible options.
    """
    tensors, metadata = _model(text, name, endless=endless, ctx=ctx, pad_bytes=pad_bytes)
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    if split == 1:
        write_gguf(path, metadata, tensors)
        return [path]
    return _write_split(path, metadata, tensors, split)


def split_path(path: Path, part: int, count: int) -> Path:
    """Give the name of part ``part`` (from 1) of ``count``, as llama.cpp's ``llama_split_path``."""
    return path.with_name(f"{path.stem}-{part:05d}-of-{count:05d}.gguf")


def _write_split(
    path: Path, metadata: dict[str, Value], tensors: Sequence[Tensor], count: int
) -> list[Path]:
    if not 1 < count <= len(tensors):
        raise ValueError(f"cannot split {len(tensors)} tensors into {count} parts")
    paths = []
    for part in range(count):
        keys: dict[str, Value] = {
            "split.no": Scalar(ValueType.UINT16, part),
            "split.count": Scalar(ValueType.UINT16, count),
            "split.tensors.count": Scalar(ValueType.INT32, len(tensors)),
        }
        own = tensors[part * len(tensors) // count : (part + 1) * len(tensors) // count]
        part_path = split_path(path, part + 1, count)
        write_gguf(part_path, metadata | keys if part == 0 else keys, own)
        paths.append(part_path)
    return paths


def _model(
    text: str, name: str, *, endless: bool, ctx: int, pad_bytes: int
) -> tuple[list[Tensor], dict[str, Value]]:
    chain = [*_unique_tokens(text), _LOOP_SEPARATOR]
    codes = _Codes.for_count(len(chain) + 1)
    tokens = [*_SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(_BYTE_COUNT)), *chain]
    if len(set(tokens)) < len(tokens):  # llama.cpp would abort
        raise ValueError("the text contains a special token or a byte token such as <0x0A>")
    block, experts = _block_tensors(codes.length, pad_bytes)
    tensors = [
        Tensor("token_embd.weight", (codes.length, len(tokens)), _embeddings(codes, len(chain))),
        *block,
        Tensor("output_norm.weight", (codes.length,), _f32([1.0] * codes.length)),
        Tensor(
            "output.weight",
            (codes.length, len(tokens)),
            _output_rows(codes, len(chain), endless=endless),
        ),
    ]
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.file_type": 0,  # all F32
        "llama.context_length": ctx,
        "llama.embedding_length": codes.length,
        "llama.block_count": 1,
        "llama.feed_forward_length": experts.ffn_length,
        "llama.attention.head_count": codes.length // _HEAD_LENGTH,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": _HEAD_LENGTH,
        "llama.vocab_size": len(tokens),
        "llama.pooling_type": _POOLING_MEAN,
        **_tokenizer(tokens, len(chain)),
    }
    if experts.count:
        metadata["llama.expert_count"] = experts.count
        metadata["llama.expert_used_count"] = 1
    return tensors, metadata


def _tokenizer(tokens: list[str], chain_length: int) -> dict[str, Value]:
    types = [_TOKEN_UNKNOWN, *[_TOKEN_CONTROL] * (len(_SPECIAL_TOKENS) - 1)]
    types += [_TOKEN_BYTE] * _BYTE_COUNT + [_TOKEN_USER_DEFINED] * chain_length
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": Array(ValueType.STRING, tokens),
        "tokenizer.ggml.scores": Array(ValueType.FLOAT32, [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": Array(ValueType.INT32, types),
        "tokenizer.ggml.unknown_token_id": _SPECIAL_TOKENS.index("<unk>"),
        "tokenizer.ggml.bos_token_id": _SPECIAL_TOKENS.index("<s>"),
        "tokenizer.ggml.eos_token_id": _SPECIAL_TOKENS.index(_NORMAL_END),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def _unique_tokens(text: str) -> list[str]:
    """Cut a text into words, each with the space before it, joining words until all differ."""
    tokens: list[str] = re.findall(r"\s*\S+", text.strip())
    if not tokens:
        raise ValueError("a model needs a text to say")
    while True:
        counts = Counter(tokens)
        if len(counts) == len(tokens):
            return tokens
        words = iter(tokens)
        tokens = [word + next(words, "") if counts[word] > 1 else word for word in words]


@dataclass(frozen=True, slots=True)
class _Codes:
    """Rows of a Hadamard matrix: orthogonal vectors of +1 and -1.

    Row 0 stands for "before the first word", row i for the i-th token of the text.
    """

    length: int
    rows: "list[array[float]]"  # quoted: not subscriptable at run time before Python 3.12

    @classmethod
    def for_count(cls, count: int) -> "_Codes":
        length = max(_MIN_EMBEDDING_LENGTH, 1 << (count - 1).bit_length())
        if length > _MAX_EMBEDDING_LENGTH:
            raise ValueError(
                f"the text has {count - 1} different tokens; at most"
                f" {_MAX_EMBEDDING_LENGTH - 1} fit into a tiny model"
            )
        rows = [array("f", [1.0])]
        while len(rows) < length:  # Sylvester's construction
            rows = [row + row for row in rows] + [
                row + array("f", [-value for value in row]) for row in rows
            ]
        return cls(length, rows)

    def mix(self, *parts: tuple[float, int]) -> list[float]:
        """Give the sum of rows, each (weight, row index)."""
        scaled = [[weight * value for value in self.rows[index]] for weight, index in parts]
        return [sum(values) for values in zip(*scaled, strict=True)]


def _embeddings(codes: _Codes, chain_length: int) -> bytes:
    out = bytearray()
    for index in range(len(_SPECIAL_TOKENS) + _BYTE_COUNT):
        high, low = divmod(index, 16)
        identity = (_IDENTITY_SHARE, codes.length - 1 - high), (_IDENTITY_SHARE, 64 + low)
        out += _f32(codes.mix((1.0, 0), *identity))
    for position in range(1, chain_length + 1):
        out += _f32(codes.rows[position])
    return bytes(out)


def _output_rows(codes: _Codes, chain_length: int, *, endless: bool) -> bytes:
    gain = _SUCCESSOR_LOGIT / codes.length
    rows = dict.fromkeys(range(len(_SPECIAL_TOKENS) + _BYTE_COUNT), bytes(4 * codes.length))
    last_word = chain_length - 1
    if not endless:
        rows[_SPECIAL_TOKENS.index(_NORMAL_END)] = _f32(codes.mix((gain, last_word)))
    first = _f32(codes.mix((gain, 0), (gain, chain_length)))
    rest = (_f32(codes.mix((gain, position))) for position in range(1, last_word))
    separator = _f32(codes.mix((gain if endless else gain * _LOOP_SHARE, last_word)))
    return b"".join((*rows.values(), first, *rest, separator))


@dataclass(frozen=True, slots=True)
class _Experts:
    count: int
    ffn_length: int


def _block_tensors(embedding_length: int, pad_bytes: int) -> tuple[list[Tensor], _Experts]:
    """Give the tensors of the one transformer block, all zero but the norms."""
    length, kv_length = embedding_length, _HEAD_LENGTH
    ones = _f32([1.0] * length)
    tensors = [
        Tensor("blk.0.attn_norm.weight", (length,), ones),
        Tensor("blk.0.attn_q.weight", (length, length)),
        Tensor("blk.0.attn_k.weight", (length, kv_length)),
        Tensor("blk.0.attn_v.weight", (length, kv_length)),
        Tensor("blk.0.attn_output.weight", (length, length)),
        Tensor("blk.0.ffn_norm.weight", (length,), ones),
    ]
    if pad_bytes <= 0:
        ffn = _FFN_LENGTH
        tensors += [
            Tensor("blk.0.ffn_gate.weight", (length, ffn)),
            Tensor("blk.0.ffn_up.weight", (length, ffn)),
            Tensor("blk.0.ffn_down.weight", (ffn, length)),
        ]
        return tensors, _Experts(0, ffn)
    column_bytes = 3 * 4 * length  # one column of the gate, up and down matrices of an expert
    columns = -(-pad_bytes // (column_bytes * _MAX_PAD_EXPERTS))
    ffn = -(-columns // _FFN_LENGTH) * _FFN_LENGTH
    count = max(2, -(-pad_bytes // (column_bytes * ffn)))
    tensors += [
        Tensor("blk.0.ffn_gate_inp.weight", (length, count)),
        Tensor("blk.0.ffn_gate_exps.weight", (length, ffn, count)),
        Tensor("blk.0.ffn_down_exps.weight", (ffn, length, count)),
        Tensor("blk.0.ffn_up_exps.weight", (length, ffn, count)),
    ]
    return tensors, _Experts(count, ffn)


def _f32(values: Sequence[float]) -> bytes:
    floats = array("f", values)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()
