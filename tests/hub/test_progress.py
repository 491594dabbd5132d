from llama_router.hub.progress import in_words


def test_sizes_in_words() -> None:
    assert [in_words(n) for n in (0, 1023, 2048, 5 * 2**30)] == [
        "0 bytes",
        "1023 bytes",
        "2.0 KiB",
        "5.0 GiB",
    ]
