import pytest

from llama_router.cli.asking import columns, in_words


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (4.4 * 2**30, "4.4 GiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_sizes_have_the_unit_that_leaves_few_digits(size_bytes: float, text: str) -> None:
    assert in_words(size_bytes) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([["a", "bb"], ["ccc", "d"]], right=(1,)) == ["a    bb", "ccc   d"]
