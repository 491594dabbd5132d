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


def test_nothing_is_nothing() -> None:
    assert TensorTally().bytes() == TensorBytes()
