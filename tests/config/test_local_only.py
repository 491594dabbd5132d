from typing import Any

import pytest

from llama_router.config.edit import Edit, refuse_local_only
from llama_router.config.local_only import LOCAL_ONLY, LocalOnlyError
from llama_router.config.problems import Keys
from llama_router.config.validate import SECTIONS


def set_(keys: Keys, value: object = "x") -> None:
    refuse_local_only([Edit("set", keys, value)])


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("router", "ttl_s"), 60),
        (("router", "preload"), ["a"]),
        (("router", "preload", 0), "a"),
        (("startup_model",), "a"),
        (("models", 0, "ttl_s"), 5),
        (("models", "name=a", "filters", "set_params"), {"temperature": 0.5}),
        (("models", 0, "template"), "small"),
        (("templates", "small", "ttl_s"), 5),
        (("selectors", "any"), {"strategy": "warm", "targets": ["a"]}),
        (("profiles",), {}),
        (("models", 0, "description"), "costs $5, or $${x}"),
    ],
)
def test_how_models_are_run_can_be_set_from_afar(keys: Keys, value: object) -> None:
    set_(keys, value)


@pytest.mark.parametrize(
    "keys",
    [
        ("default_spawn", "command", 0),
        ("default_spawn",),
        ("models", 0, "spawn", "env", "PATH"),
        ("models", "name=a", "spawn", "stop_command"),
        ("templates", "x", "spawn", "address"),
        ("models", 0, "path"),
        ("models", 0, "mmproj"),
        ("models", 0, "macros", "a"),
        ("models", 0, "parameters", "host"),
        ("macros",),
        ("router", "host"),
        ("router", "api_keys", 0),
        ("router", "admin_token"),
        ("router", "allow_public_without_keys"),
        ("router", "models_dirs"),
        ("peers", "x", "url"),
        ("hub", "endpoint"),
        ("hub", "token"),
        ("hub", "offline"),
    ],
)
def test_programs_files_addresses_and_keys_cannot(keys: Keys) -> None:
    with pytest.raises(LocalOnlyError, match="only be changed in the file"):
        set_(keys)
    with pytest.raises(LocalOnlyError):
        refuse_local_only([Edit("remove", keys)])


@pytest.mark.parametrize("keys", [("router",), ("hub",), ("models",), ("defaults",), ("models", 0)])
def test_a_section_is_not_replaced_with_what_is_not_to_be_changed_in_it(keys: Keys) -> None:
    with pytest.raises(LocalOnlyError, match="one by one"):
        set_(keys, {})


def test_a_model_can_be_taken_out() -> None:
    refuse_local_only([Edit("remove", ("models", "name=a")), Edit("set", ("models", 0), None)])
    with pytest.raises(LocalOnlyError):
        refuse_local_only([Edit("remove", ("models",))])


@pytest.mark.parametrize("value", ["${env.HF_TOKEN}", {"a": ["x ${b}"]}, "${"])
def test_nothing_is_read_from_the_environment_or_macros(value: Any) -> None:  # noqa: ANN401 - any value
    with pytest.raises(LocalOnlyError, match="macro"):
        set_(("models", 0, "metadata"), value)


def test_no_entry_is_named_after_a_variable_of_the_environment() -> None:
    with pytest.raises(LocalOnlyError, match="macro"):
        set_(("models", "name=${env.HF_TOKEN}", "ttl_s"), 5)
    set_(("models", "name=$${plain", "ttl_s"), 5)


def test_every_place_is_one_of_the_schema() -> None:
    for place in LOCAL_ONLY:
        section = tuple(key for key in place[:-1] if place[0] != "models" or key != "*")
        assert place[-1] in SECTIONS[section].model_fields
