from pathlib import Path

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.resolve import AmbiguousModelError, Catalog, UnknownModelError


def entry(model_id: str, *names: str, invalid: str = "") -> CatalogModel:
    return CatalogModel(
        id=model_id,
        path=Path("/m.gguf"),
        source=ModelSource.MODELS_DIR,
        names=names,
        invalid=invalid,
    )


def test_id_wins_over_names_and_names_resolve() -> None:
    sea, sky = entry("sea", "sky"), entry("sky", "sky.gguf", "blue")
    catalog = Catalog([sea, sky])

    assert catalog.resolve("sky") is sky
    assert catalog.resolve("sky.gguf") is sky
    assert catalog.resolve("blue") is sky
    assert catalog.models == (sea, sky)


def test_first_of_two_with_one_id_counts() -> None:
    first, second = entry("sea", "a"), entry("sea", "b")
    catalog = Catalog([first, second])

    assert catalog.resolve("sea") is first
    with pytest.raises(UnknownModelError):
        catalog.resolve("b")


def test_names_are_case_sensitive_and_no_paths() -> None:
    catalog = Catalog([entry("org/sea:Q4_0", "sea.gguf")])

    for name in ("Org/sea:Q4_0", "org/./sea:Q4_0", "/m.gguf", "", "org/sea:Q4_0 "):
        with pytest.raises(UnknownModelError) as raised:
            catalog.resolve(name)
        assert raised.value.name == name


def test_name_of_several_models_is_ambiguous() -> None:
    catalog = Catalog([entry("a/sea", "sea.gguf"), entry("b/sea", "sea.gguf")])

    with pytest.raises(AmbiguousModelError) as raised:
        catalog.resolve("sea.gguf")

    assert raised.value.ids == ("a/sea", "b/sea")
    assert "a/sea, b/sea" in str(raised.value)


def test_invalid_models_resolve() -> None:
    assert Catalog([entry("sea", invalid="truncated")]).resolve("sea").invalid == "truncated"


@pytest.mark.parametrize(
    ("path", "model_id", "rest"),
    [
        ("org/sea:Q4_0/props", "org/sea:Q4_0", "/props"),
        ("org/sea/props", "org/sea", "/props"),
        ("org/props", "org", "/props"),
        ("org/sea:Q4_0", "org/sea:Q4_0", ""),
        ("org/sea:Q4_0/v1/chat/completions", "org/sea:Q4_0", "/v1/chat/completions"),
        ("org/seagull/props", "org", "/seagull/props"),
        ("sea.gguf//slots", "org/sea", "//slots"),
    ],
)
def test_longest_prefix_that_is_a_model_wins(path: str, model_id: str, rest: str) -> None:
    catalog = Catalog([entry("org"), entry("org/sea", "sea.gguf"), entry("org/sea:Q4_0")])

    split = catalog.longest_prefix(path)

    assert split is not None
    assert (split[0].id, split[1]) == (model_id, rest)


def test_path_without_a_model_has_no_prefix() -> None:
    catalog = Catalog([entry("org/sea")])

    for path in ("", "/", "props", "org", "/org/sea/props", "organ/sea"):
        assert catalog.longest_prefix(path) is None


def test_a_path_of_thousands_of_slashes_is_looked_at_as_far_as_a_name_can_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = Catalog([entry("a/a"), entry("user/repo:Q4")])
    tried: list[str] = []

    class Tried(dict[str, CatalogModel]):
        def __contains__(self, name: object) -> bool:
            tried.append(str(name))
            return super().__contains__(name)

    monkeypatch.setattr(catalog, "_by_id", Tried(catalog._by_id))

    assert catalog.longest_prefix("b/" * 4000) is None
    assert len(tried) <= len("user/repo:Q4")
    found = catalog.longest_prefix("a/" * 4000)
    assert found is not None
    assert (found[0].id, len(found[1])) == ("a/a", 7997)
