import pytest

from llama_router.config.schema import Config
from llama_router.runtime.overrides import OverrideError, Overrides, entry_index, laid


def test_settings_are_laid_over_each_other_and_taken_back() -> None:
    none = Overrides()
    one = none.changed("fox", {"ttl_s": 5.0, "parameters": {"ctx-size": 9, "top-k": 1}})
    two = one.changed("fox", {"ttl_s": None, "parameters": {"ctx-size": None}, "pinned": True})
    assert dict(two["fox"]) == {"parameters": {"top-k": 1}, "pinned": True}
    layer = two.layers["fox"]
    assert layer.model_fields_set == {"parameters", "pinned"}
    assert (layer.parameters, layer.pinned) == ({"top-k": 1}, True)
    assert dict(one["fox"])["ttl_s"] == 5.0, "a value is never changed"
    assert list(two.without("fox")) == []
    assert len(none) == 0


@pytest.mark.parametrize("key", ["spawn", "macros", "name", "path", "mmproj", "command"])
def test_what_runs_programs_or_names_files_takes_the_config_file(key: str) -> None:
    with pytest.raises(OverrideError, match=f"{key}: .* takes the config file"):
        Overrides().changed("fox", {key: {}})


def test_values_are_held_to_the_schema() -> None:
    with pytest.raises(OverrideError, match="ttl_s: must be 0 or more"):
        Overrides().changed("fox", {"ttl_s": -1.0})
    with pytest.raises(OverrideError, match="priority: must be a whole number"):
        Overrides().changed("fox", {"priority": "high"})


def test_nothing_is_left_of_what_was_all_taken_back() -> None:
    assert laid({"ttl_s": 1.0, "parameters": {"a": 1}}, {"ttl_s": None, "parameters": None}) == {}
    assert "fox" not in set(Overrides().changed("fox", {"ttl_s": None}))


def test_the_entry_of_a_model_is_found_by_its_id_or_if_it_is_auto_by_another_name() -> None:
    entries = [{"name": "fox.gguf"}, {"name": "red", "state": "auto"}, {"name": "owl"}]
    config = Config.model_validate({"models": entries})
    assert entry_index(config, "owl", ()) == 2
    assert entry_index(config, "fox", ("fox.gguf", "red")) == 1
    assert entry_index(config, "fox", ("fox.gguf",)) is None
