from pathlib import Path

import gguf
import pytest

from llama_router.catalog.gguf_reader import read_gguf
from llama_router.catalog.synthetic import (
    MIN_VOCABULARY,
    ProjectorShape,
    Shape,
    write_synthetic,
    write_synthetic_projector,
)

LATENT = Shape(architecture="deepseek2", heads=4, key_length=128, kv_lora_rank=256)
SHAPES = {
    "llama": Shape(kv_heads=1, key_length=128, value_length=64),
    "experts": Shape(experts=4, experts_used=2),
    "gemma3": Shape(architecture="gemma3", layers=7, sliding_window=512, has_output=False),
    "deepseek2": LATENT,
    "mamba": Shape(architecture="mamba"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_headers_are_readable_by_the_reference_library(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    path = write_synthetic(tmp_path / "m.gguf", shape)

    reader = gguf.GGUFReader(path)
    info = read_gguf(path)

    assert sum(int(tensor.n_bytes) for tensor in reader.tensors) == info.tensor_bytes
    assert (info.architecture, info.block_count) == (shape.architecture, shape.layers)
    assert len(info.tensors.blocks) == shape.layers
    assert bool(info.tensors.output_weight) is shape.has_output
    assert info.vocab_size == MIN_VOCABULARY


def test_weights_take_no_disk_space(tmp_path: Path) -> None:
    shape = Shape(embedding_length=1024, feed_forward_length=8192)

    status = write_synthetic(tmp_path / "m.gguf", shape).stat()

    assert status.st_size > 100 * 2**20
    assert status.st_blocks * 512 < 2**20


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        write_synthetic(tmp_path / "m.gguf", Shape(vocabulary=5))
    with pytest.raises(ValueError, match="architecture"):
        write_synthetic(tmp_path / "m.gguf", Shape(architecture="bert"))


def test_a_projector_says_how_it_is_built(tmp_path: Path) -> None:
    path = write_synthetic_projector(tmp_path / "p.gguf", ProjectorShape(image_pixels=64))

    info = read_gguf(path)

    assert (info.architecture, info.general_type) == ("clip", "mmproj")
    assert info.parameters["vision.image_size"] == (64,)
    assert len(info.tensors.blocks) == 2
