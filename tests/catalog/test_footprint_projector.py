import pytest

from llama_router.catalog.footprint_projector import projector_bytes
from llama_router.catalog.gguf_tensors import TensorBytes
from tests.support.headers import header

MIB = 2**20


@pytest.mark.parametrize(
    ("pixels", "length", "inner", "logged_mib"),
    [
        (384, 1024, 4096, 15.75),
        (384, 1024, 1024, 11.25),
        (768, 1024, 4096, 63),
        (384, 2048, 4096, 22.5),
    ],
)
def test_compute_buffer_as_logged(pixels: int, length: int, inner: int, logged_mib: float) -> None:
    info = header(
        "clip",
        tensors=TensorBytes(other=5 * MIB),
        vision__image_size=pixels,
        vision__patch_size=16,
        vision__embedding_length=length,
        vision__feed_forward_length=inner,
    )

    picture_bytes = pixels * pixels * 3 * 4
    assert projector_bytes(info) == 5 * MIB + logged_mib * MIB + picture_bytes


def test_sound_has_a_longest_piece() -> None:
    info = header("clip", audio__embedding_length=1024, audio__feed_forward_length=4096)

    assert projector_bytes(info) == 1500 * (4096 + 3 * 1024) * 4


def test_an_absurd_picture_is_bounded() -> None:
    info = header(
        "clip", vision__image_size=2**31, vision__patch_size=1, vision__embedding_length=1024
    )

    assert projector_bytes(info) < 2**31
