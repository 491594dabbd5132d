import pytest

from llama_router.catalog import footprint_buffers as buffers
from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_layers import Layer, layers_of
from llama_router.catalog.gguf_reader import GgufInfo
from tests.support.headers import header

GIB = 2**30
MIB = 2**20


def kv_bytes(info: GgufInfo, arguments: str) -> int:
    parsed = parse_arguments(arguments.split())
    context = buffers.context_of(info, parsed, buffers.wanted_ctx_tokens(info, parsed))
    return sum(buffers.kv_cache_bytes(layer, context, parsed) for layer in layers_of(info))


def test_llama_3_1_8b_at_32k() -> None:
    info = header(layers=32, heads=32, kv_heads=8, embedding_length=4096)

    assert kv_bytes(info, "-c 32768 -np 1") == 4 * GIB
    assert kv_bytes(info, "-c 32768 -np 1 -ctk q8_0 -ctv q8_0") == 4 * GIB * 34 // 64
    assert kv_bytes(info, "-c 32768 -np 1 -ctk q4_0") == 2 * GIB + 2 * GIB * 18 // 64


def test_gemma_3_27b_at_32k_needs_a_sixth_of_what_its_layers_would() -> None:
    info = header(
        "gemma3", layers=62, heads=32, kv_heads=16, key_length=128, value_length=128, window=1024
    )

    assert kv_bytes(info, "-c 32768 -np 1") / GIB == pytest.approx(3.11, abs=0.01)
    assert kv_bytes(info, "-c 32768 -np 1 --swa-full") == 62 * 32768 * 16 * 128 * 2 * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # ctx, slots, streams, cells, windowed cells, batch, ubatch, outputs
        ("", (4096, 4, 1, 4096, 2560, 2048, 512, 4)),
        ("-np 4", (16384, 4, 4, 4096, 1024, 2048, 512, 4)),
        ("-np 4 --fit off", (4096, 4, 4, 1024, 1024, 2048, 512, 4)),
        ("-c 2000 -np 3", (2304, 3, 3, 768, 768, 2000, 512, 3)),
        ("-c 2000 -np 3 -kvu", (2048, 3, 1, 2048, 2048, 2000, 512, 3)),
        ("-np 2 -kvu --kv-unified-per-slot 1000", (2048, 2, 1, 2048, 1536, 2000, 512, 2)),
        ("-c 100", (256, 4, 1, 256, 256, 100, 100, 4)),
        ("-c 0 -b 256 -ub 1024", (4096, 4, 1, 4096, 2304, 256, 256, 4)),
        ("-np 1 -ub 0", (4096, 1, 1, 4096, 2560, 2048, 2048, 1)),
        ("--embedding", (4096, 4, 1, 4096, 2560, 512, 512, 512)),
    ],
)
def test_contexts_are_laid_out_as_llama_cpp_does(arguments: str, expected: tuple[int, ...]) -> None:
    parsed = parse_arguments(arguments.split())
    info = header("gemma3", window=512)

    found = buffers.context_of(info, parsed, buffers.wanted_ctx_tokens(info, parsed))

    assert tuple(getattr(found, name) for name in found.__struct_fields__) == expected


def test_compute_and_output_buffers_as_logged() -> None:
    # What b11434 says for such a model: 36.02 and 0.49 MiB.
    info = header(
        layers=3, heads=32, kv_heads=8, key_length=128, value_length=128, vocabulary=32_000
    )
    parsed = LaunchArguments(ctx_size=2048)
    context = buffers.context_of(info, parsed, 2048)
    layers = layers_of(info)

    compute = buffers.input_bytes(layers, context, parsed) + buffers.compute_bytes(
        info, layers, context, parsed
    )

    assert compute / MIB == pytest.approx(36.02, abs=0.05)
    assert buffers.output_bytes(info, context, parsed) / MIB == pytest.approx(0.49, abs=0.01)


def test_without_flash_attention_all_scores_are_kept() -> None:
    # 43.51 MiB in b11434.
    info = header(
        layers=3,
        heads=4,
        kv_heads=2,
        key_length=64,
        value_length=64,
        embedding_length=256,
        feed_forward_length=(64,),
    )
    parsed = LaunchArguments(ctx_size=4096, flash_attention="off")
    context = buffers.context_of(info, parsed, 4096)
    layers = layers_of(info)

    compute = buffers.input_bytes(layers, context, parsed) + buffers.compute_bytes(
        info, layers, context, parsed
    )

    assert compute / MIB == pytest.approx(43.51, rel=0.02)


def test_experts_compute_for_each_that_is_used() -> None:
    # 55.02 MiB in b11434, 2 MiB of it masks.
    info = header(
        heads=4,
        kv_heads=2,
        key_length=64,
        embedding_length=512,
        feed_forward_length=(1024,),
        experts=32,
        expert_used_count=8,
    )
    parsed = LaunchArguments(ctx_size=2048)
    context = buffers.context_of(info, parsed, 2048)

    compute = buffers.compute_bytes(info, layers_of(info), context, parsed)

    assert compute == 53 * MIB


def test_a_checkpoint_holds_the_window_and_the_states() -> None:
    # 80.01 MiB in b11434.
    info = header("gemma3", window=1024)
    parsed = LaunchArguments(ctx_size=16384)
    context = buffers.context_of(info, parsed, 16384)
    layers = (Layer(8 * 256, 8 * 256, is_windowed=True),) * 10 + (Layer(8 * 256, 8 * 256),) * 2

    assert buffers.checkpoint_bytes(layers, info, context, parsed) == 80 * MIB
    full = LaunchArguments(ctx_size=16384, swa_full=True)
    assert buffers.checkpoint_bytes(layers, info, context, full) == 0
