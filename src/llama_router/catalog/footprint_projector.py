"""What a projector ("mmproj") takes. Source: ``tools/mtmd/clip.cpp`` of llama.cpp b11434."""

from llama_router.catalog.gguf_reader import GgufInfo

_F32_BYTES = 4
_CHANNELS = 3
_MAX_PATCHES = 65_536  # a picture of 4096 pixels to an edge in patches of 16
# Thirty seconds of sound in Whisper's encoder, the longest piece at a time.
_AUDIO_POSITIONS = 1500


def projector_bytes(info: GgufInfo) -> int:
    """Give the size of its weights and of the buffer in which it computes."""
    return info.tensors.total + max(_vision_bytes(info), _audio_bytes(info))


def _vision_bytes(info: GgufInfo) -> int:
    def number(key: str) -> int:
        return max(info.parameters.get(f"vision.{key}", (0,)))

    patch = number("patch_size")
    if not patch:
        return 0
    pixels = max(number("image_size") ** 2, number("image_max_pixels"))
    patches = min(pixels // patch**2, _MAX_PATCHES)
    floats = patches * _width(number("embedding_length"), number("feed_forward_length"))
    return (floats + patches * patch**2 * _CHANNELS) * _F32_BYTES


def _audio_bytes(info: GgufInfo) -> int:
    length = max(info.parameters.get("audio.embedding_length", (0,)))
    inner = max(info.parameters.get("audio.feed_forward_length", (0,)))
    return _AUDIO_POSITIONS * _width(length, inner) * _F32_BYTES


def _width(length: int, inner: int) -> int:
    return max(inner + 3 * length, 5 * length)
