"""How the bytes of a model's tensors are spread over its parts."""

import re
from collections.abc import Sequence

import msgspec

MAX_BLOCKS = 512  #: Layers that are told apart: LLAMA_MAX_LAYERS of llama-hparams.h.
_BLOCK = re.compile(rb"(?:blk|v\.blk|a\.blk)\.([0-9]{1,4})\.")
_EXPERTS = re.compile(rb"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps(?:\.|\Z)")
_INPUT = (b"token_embd", b"per_layer_token_embd", b"token_types", b"position_embd")
_OUTPUT = b"output"

#: Tensors whose names a pattern is found in, and the device that they are to lie on.
Moved = tuple[re.Pattern[bytes], str]


class TensorBytes(msgspec.Struct, frozen=True):
    """Sizes of the tensors in one file, in bytes.

    ``blocks``: those of each layer, without ``experts``: the experts' of each layer. ``input``:
    embeddings of tokens, which llama.cpp always keeps in RAM; of them ``token_embeddings``.
    ``output``: the last layer's. ``other``: the rest. ``moved``: by device, those that were asked
    to be elsewhere; they are in none of the others.
    """

    blocks: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    input: int = 0
    token_embeddings: int = 0
    output: int = 0
    output_weight: int = 0
    other: int = 0
    moved: tuple[tuple[str, int], ...] = ()

    def plus(self, more: "TensorBytes") -> "TensorBytes":
        """Sum two parts of one model."""
        return TensorBytes(
            _added(self.blocks, more.blocks),
            _added(self.experts, more.experts),
            self.input + more.input,
            self.token_embeddings + more.token_embeddings,
            self.output + more.output,
            self.output_weight + more.output_weight,
            self.other + more.other,
            _merged(self.moved, more.moved),
        )

    @property
    def total(self) -> int:
        """All of them."""
        layers = sum(self.blocks) + sum(self.experts)
        moved = sum(size_bytes for _device, size_bytes in self.moved)
        return layers + self.input + self.output + self.other + moved


class TensorTally:
    """Adds up tensors by their names. Of ``moved`` the first pattern that is found counts."""

    def __init__(self, moved: Sequence[Moved] = ()) -> None:
        self._patterns = moved
        self._moved: dict[str, int] = {}
        self._blocks: dict[int, int] = {}
        self._experts: dict[int, int] = {}
        self._input = self._token_embeddings = self._output = self._output_weight = self._other = 0

    def add(self, name: bytes, size_bytes: int) -> None:
        """Count one tensor."""
        for pattern, device in self._patterns:
            if pattern.search(name):
                self._moved[device] = self._moved.get(device, 0) + size_bytes
                return
        match = _BLOCK.match(name)
        if match is not None and (layer := int(match[1])) < MAX_BLOCKS:
            group = self._experts if _EXPERTS.search(name) else self._blocks
            group[layer] = group.get(layer, 0) + size_bytes
        elif name.startswith(_INPUT):
            self._input += size_bytes
            if name.startswith(b"token_embd."):
                self._token_embeddings += size_bytes
        elif name.startswith(_OUTPUT):
            self._output += size_bytes
            if name == b"output.weight":
                self._output_weight += size_bytes
        else:
            self._other += size_bytes

    def bytes(self) -> TensorBytes:
        """Give the sums."""
        count = max((*self._blocks, *self._experts), default=-1) + 1
        return TensorBytes(
            tuple(self._blocks.get(layer, 0) for layer in range(count)),
            tuple(self._experts.get(layer, 0) for layer in range(count)),
            self._input,
            self._token_embeddings,
            self._output,
            self._output_weight,
            self._other,
            tuple(sorted(self._moved.items())),
        )


def _added(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    length = max(len(first), len(second))
    padded = [values + (0,) * (length - len(values)) for values in (first, second)]
    return tuple(a + b for a, b in zip(*padded, strict=True))


def _merged(
    first: tuple[tuple[str, int], ...], second: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    sums = dict(first)
    for device, size_bytes in second:
        sums[device] = sums.get(device, 0) + size_bytes
    return tuple(sorted(sums.items()))
