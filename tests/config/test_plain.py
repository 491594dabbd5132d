from llama_router.config.plain import list_of, mapping_of, texts_of


def test_what_is_of_another_kind_is_empty() -> None:
    assert (mapping_of({"a": 1}), mapping_of([1]), mapping_of(None)) == ({"a": 1}, {}, {})
    assert (list_of([1]), list_of((2,)), list_of("text"), list_of(None)) == ([1], (2,), (), ())


def test_all_texts_of_a_value_are_found_with_their_places() -> None:
    value = {"a": "x", "b": [1, "y", {"c": "z"}], "d": ("w",), "e": None}
    assert list(texts_of(value, ("top",))) == [
        (("top", "a"), "x"),
        (("top", "b", 1), "y"),
        (("top", "b", 2, "c"), "z"),
        (("top", "d", 0), "w"),
    ]
