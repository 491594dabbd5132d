"""Buffers beside those that llama-server says it makes: many shapes, loaded and not used."""

from dataclasses import replace
from pathlib import Path

import pytest

from llama_router.catalog.footprint import estimate, read_model
from llama_router.catalog.footprint_arguments import parse_arguments
from llama_router.catalog.synthetic import Shape, write_synthetic
from tests.support.measured_server import measured_server

pytestmark = pytest.mark.llama_server

MIB = 2**20
# The logged sizes are rounded to a hundredth of a MiB.
ROUNDING_BYTES = 0.01 * MIB
COMPUTE_TOLERANCE = 0.15

USUAL = Shape(layers=3, embedding_length=256, heads=4, kv_heads=2, key_length=64)
WINDOWED = replace(USUAL, architecture="gemma3", sliding_window=512, layers=7)
LATENT = Shape(
    architecture="deepseek2",
    layers=3,
    embedding_length=256,
    heads=16,
    key_length=128,
    value_length=64,
    kv_lora_rank=512,
)

CASES = {
    "usual": (USUAL, "-c 2048"),
    "all of the context": (replace(USUAL, context_length=16384), ""),
    "micro-batch": (USUAL, "-c 4096 -b 1024 -ub 256"),
    "short context": (USUAL, "-c 100"),
    "feed-forward": (replace(USUAL, feed_forward_length=4096), "-c 2048"),
    "large embedding": (replace(USUAL, embedding_length=1024), "-c 2048"),
    "many heads": (replace(USUAL, heads=16, kv_heads=8), "-c 4096"),
    "no flash attention": (USUAL, "-c 4096 -fa off"),
    "quantised": (USUAL, "-c 2048 -ctk q5_1 -ctv q4_0"),
    "three slots": (USUAL, "-c 2000 -np 3"),
    "three slots of one": (USUAL, "-c 2000 -np 3 -kvu"),
    "so much for each slot": (USUAL, "-np 3 -kvu --kv-unified-per-slot 1000"),
    "window": (WINDOWED, "-c 8192"),
    "window, two slots": (WINDOWED, "-c 8192 -np 2"),
    "window, two slots of one": (WINDOWED, "-c 8192 -np 2 -kvu"),
    "window, whole cache": (WINDOWED, "-c 8192 --swa-full"),
    "experts": (replace(USUAL, experts=32, experts_used=8, feed_forward_length=256), "-c 2048"),
    "latent": (LATENT, "-c 4096"),
    "state": (Shape(architecture="mamba", layers=3, embedding_length=512, state_size=64), "-np 3"),
    "tied": (replace(USUAL, has_output=False, vocabulary=8000), "-c 2048"),
}


@pytest.mark.parametrize("name", CASES)
def test_buffers_are_as_logged(name: str, tmp_path: Path) -> None:
    shape, text = CASES[name]
    path = write_synthetic(tmp_path / "model.gguf", shape)
    arguments = [*text.split(), "--fit", "off", "--no-warmup"]
    parsed = parse_arguments(arguments)

    need = estimate(read_model(path, parsed), parsed).needs[0]
    with measured_server(path, arguments) as server:
        logged = server.logged_bytes

    assert need.weights == pytest.approx(logged["model"], abs=ROUNDING_BYTES)
    assert need.kv_cache == pytest.approx(logged.get("KV", 0), abs=2 * ROUNDING_BYTES)
    assert need.recurrent_state == pytest.approx(logged.get("RS", 0), abs=ROUNDING_BYTES)
    assert need.output == pytest.approx(logged["output"], abs=ROUNDING_BYTES)
    assert need.compute == pytest.approx(logged["compute"], rel=COMPUTE_TOLERANCE)
