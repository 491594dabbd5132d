import re

import pytest

from llama_router.config.sizes import SIZE_MAX_BYTES, UNITLESS_MIN_BYTES, parse_device, parse_size


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [
        ("24GiB", 24 * 2**30),
        (" 24 GiB ", 24 * 2**30),
        ("24gib", 24 * 2**30),
        ("24G", 24 * 2**30),
        ("24Gi", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("0.1GB", 10**8),
        ("512MiB", 2**29),
        ("7KiB", 7 * 2**10),
        ("7KB", 7000),
        ("1TiB", 2**40),
        ("1TB", 10**12),
        ("100B", 100),
        ("1073741824", 2**30),
        (2**30, 2**30),
        (0, 0),
        ("0", 0),
        ("1024TiB", SIZE_MAX_BYTES),
        (UNITLESS_MIN_BYTES, UNITLESS_MIN_BYTES),
    ],
)
def test_sizes_are_read_as_people_write_them(value: object, size_bytes: int) -> None:
    assert parse_size(value) == size_bytes


def test_fractions_are_exact_and_rounded_down() -> None:
    assert parse_size("0.3GB") == 300_000_000
    assert parse_size("1.0009KiB") == 1024


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1,5GiB", "write a point, not a comma: 1.5GiB"),
        ("24 gigabytes", "'24 gigabytes' is no size; write a number and a unit, such as 24GiB"),
        ("GiB", "is no size"),
        ("", "is no size"),
        (".5GiB", "is no size"),
        ("1e9", "is no size"),
        ("٣GiB", "is no size"),
        ("24PiB", "is no size"),
        ("1.5", "means 1 bytes"),
        ("-3GiB", "is negative"),
        (-1, "is negative"),
        (24, "means 24 bytes; write a number and a unit"),
        ("24", "means 24 bytes"),
        ("1025TiB", "more memory than any machine has"),
        (2**60, "more memory than any machine has"),
        (1.5, "must be a size; write a number and a unit"),
        (True, "must be a size"),
        (None, "must be a size"),
        ([], "must be a size"),
    ],
)
def test_what_is_no_size_is_told_with_what_to_write(value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_size(value)


def test_long_text_is_neither_parsed_for_long_nor_repeated() -> None:
    for text in ("9" * 100_000, "1" + " " * 100_000 + "x", "1" + "," * 100_000):
        with pytest.raises(ValueError, match="no size") as caught:
            parse_size(text)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu", "cpu"),
        ("CPU", "cpu"),
        ("CUDA0", "cuda0"),
        ("ROCm12", "rocm12"),
        ("Vulkan0", "vulkan0"),
        ("SYCL1", "sycl1"),
        ("MTL0", "mtl0"),
        ("GPUOpenCL", "gpuopencl"),
        ("HTP0", "htp0"),
    ],
)
def test_devices_are_named_as_llama_cpp_does_in_lower_case(name: str, expected: str) -> None:
    assert parse_device(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cdua0", "did you mean cuda0?"),
        ("cuda", "did you mean cuda0?"),
        ("Vulcan1", "did you mean vulkan1?"),
        ("cpu0", "RAM is cpu, without a number"),
        ("ram", "write cpu for RAM"),
        ("gpu0", "such as cuda0"),
        ("VRAM", "such as cuda0"),
        ("", "is no device"),
        ("0", "is no device"),
        ("cuda 0", "is no device"),
        ("cuda:0", "is no device"),
        ("cuda0\n", "is no device"),
        ("x" * 10_000, "is no device"),
    ],
)
def test_what_is_no_device_is_told_with_what_to_write(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match="is no device") as caught:
        parse_device(name)
    assert expected in str(caught.value)
