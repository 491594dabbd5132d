import re

from llama_router.catalog.gguf_tensors import TensorBytes, TensorTally


def test_tensors_are_told_apart_by_their_names() -> None:
    tally = TensorTally()
    for name, size_bytes in {
        b"token_embd.weight": 1,
        b"per_layer_token_embd.weight": 2,
        b"output.weight": 4,
        b"output_norm.weight": 8,
        b"blk.0.attn_q.weight": 16,
        b"blk.2.ffn_up.weight": 32,
        b"blk.2.ffn_gate_up_exps.weight": 64,
        b"blk.0.ffn_down_exps.weight": 128,
        b"blk.99999.x": 256,
        b"rope_freqs.weight": 512,
    }.items():
        tally.add(name, size_bytes)

    found = tally.bytes()

    assert found == TensorBytes(
        blocks=(16, 0, 32),
        experts=(128, 0, 64),
        input=3,
        token_embeddings=1,
        output=12,
        output_weight=4,
        other=256 + 512,
    )
    assert found.total == 1023


def test_parts_are_summed() -> None:
    first = TensorBytes(blocks=(1,), input=2, output=3)
    second = TensorBytes(blocks=(0, 5), experts=(0, 7), other=1)

    assert first.plus(second) == TensorBytes(
        blocks=(1, 5), experts=(0, 7), input=2, output=3, other=1
    )


def test_tensors_that_are_to_lie_elsewhere_are_kept_apart() -> None:
    tally = TensorTally([(re.compile(b"attn"), "cpu"), (re.compile(b"blk"), "cuda1")])
    for name in (b"blk.0.attn_q.weight", b"blk.0.ffn_up.weight", b"output.weight"):
        tally.add(name, 5)

    found = tally.bytes()

    assert found == TensorBytes(output=5, output_weight=5, moved=(("cpu", 5), ("cuda1", 5)))
    assert found.total == 15
    more = TensorBytes(moved=(("cuda1", 1), ("cuda2", 2)))
    assert found.plus(more).moved == (("cpu", 5), ("cuda1", 6), ("cuda2", 2))


def test_nothing_is_nothing() -> None:
    assert TensorTally().bytes() == TensorBytes()
