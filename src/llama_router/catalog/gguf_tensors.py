"""How the bytes of a model's tensors are spread over its parts."""

import re

import msgspec

_MAX_BLOCKS = 4096  # llama.cpp allows 512 layers
_BLOCK = re.compile(rb"(?:blk|v\.blk|a\.blk)\.([0-9]{1,4})\.")
_EXPERTS = re.compile(rb"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps(?:\.|\Z)")
_INPUT = (b"token_embd", b"per_layer_token_embd", b"token_types", b"position_embd")
_OUTPUT = b"output"


class TensorBytes(msgspec.Struct, frozen=True):
    """Sizes of the tensors in one file, in bytes.

    ``blocks``: those of each layer, without ``experts``: the experts' of each layer. ``input``:
    embeddings of tokens, which llama.cpp always keeps in RAM; of them ``token_embeddings``.
    ``output``: the last layer's. ``other``: the rest.
    """

    blocks: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    input: int = 0
    token_embeddings: int = 0
    output: int = 0
    output_weight: int = 0
    other: int = 0

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
        )

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.blocks) + sum(self.experts) + self.input + self.output + self.other


class TensorTally:
    """Adds up tensors by their names."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        self._experts: dict[int, int] = {}
        self._input = self._token_embeddings = self._output = self._output_weight = self._other = 0

    def add(self, name: bytes, size_bytes: int) -> None:
        """Count one tensor."""
        match = _BLOCK.match(name)
        if match is not None and (layer := int(match[1])) < _MAX_BLOCKS:
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
        )


def _added(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    length = max(len(first), len(second))
    padded = [values + (0,) * (length - len(values)) for values in (first, second)]
    return tuple(a + b for a, b in zip(*padded, strict=True))
