from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llama_router.config.schema import (
    DEFAULT_COMMAND,
    ApiKeyEntry,
    Config,
    ModelEntry,
    PeerEntry,
    RouterSettings,
    SelectorEntry,
    SpawnSettings,
    default_key_name,
    is_loopback,
    public_bind_problem,
)
from llama_router.config.validate import SECTIONS
from llama_router.core.settings import CoreSettings

REQUIRED: dict[type[BaseModel], dict[str, Any]] = {
    ModelEntry: {"name": "a"},
    ApiKeyEntry: {"key": "k"},
    SelectorEntry: {"strategy": "warm", "targets": ["a"]},
    PeerEntry: {"url": "http://127.0.0.1:8082"},
}


def test_an_empty_config_is_the_original_defaults() -> None:
    config = Config.model_validate({})
    assert config.version == "1.0"
    assert config.startup_model == ""
    assert (config.router.host, config.router.port, config.router.base_port) == (
        "127.0.0.1",
        8082,
        50000,
    )
    assert config.router.connection_timeout_s == 5
    assert config.router.read_timeout_s == 600
    assert config.router.admin_token == ""
    assert not config.router.notify_model_swap
    assert config.default_spawn == SpawnSettings(
        command=DEFAULT_COMMAND, proxy_endpoints=None, health_endpoint="/health"
    )
    assert config.models == ()


def test_a_model_is_manual_and_alone_by_default() -> None:
    model = ModelEntry(name="a")
    assert (model.state, model.group, model.path, model.aliases) == ("manual", "", "", ())


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.__name__)
def test_every_field_is_described_and_numbers_have_units(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        if name.endswith("_s"):
            unit = "bytes/s" if "bytes" in name else "s"
            assert field.json_schema_extra == {"unit": unit}, name


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.__name__)
def test_defaults_pass_their_own_validation(section: type[BaseModel]) -> None:
    made = section.model_validate(REQUIRED.get(section, {}))
    content = made.model_dump(exclude_none=True)
    assert section.model_validate(content) == made


def test_the_core_has_the_same_defaults() -> None:
    router, core = RouterSettings(), CoreSettings()
    for name in ("max_loaded", "max_wait_s", "min_residency_s", "max_queue_s", "max_waiting"):
        assert getattr(router, name) == getattr(core, name), name


def test_memory_is_looked_at_and_nothing_else_restricts_by_default() -> None:
    router, model = RouterSettings(), ModelEntry(name="a")
    assert (router.policy, router.memory_aware, router.history) == ("benefit", True, True)
    assert (router.memory, router.memory_reserve, router.max_loaded) == ({}, None, 0)
    assert (router.ttl_s, router.max_keep_alive_s, router.first_byte_timeout_s) == (0, None, 0)
    assert (model.memory, model.ttl_s, model.min_residency_s) == (None, None, None)
    assert (model.pinned, model.priority, model.max_in_flight, model.max_waiting) == (
        False,
        0,
        0,
        0,
    )


def test_sizes_become_bytes_and_devices_lower_case() -> None:
    router = RouterSettings.model_validate(
        {"memory": {"CUDA0": "22GiB", "cpu": 0}, "memory_reserve": "512MiB"}
    )
    assert router.memory == {"cuda0": 22 * 2**30, "cpu": 0}
    assert router.memory_reserve == 512 * 2**20


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("3GiB", 3 * 2**30),
        (3 * 2**30, 3 * 2**30),
        ({"Vulkan1": "1GB", "cpu": "2MB"}, {"vulkan1": 10**9, "cpu": 2 * 10**6}),
        ({}, {}),
    ],
)
def test_what_a_model_takes_is_one_size_or_one_for_each_device(
    memory: object, expected: object
) -> None:
    assert ModelEntry.model_validate({"name": "a", "memory": memory}).memory == expected


def test_plain_keys_become_entries_named_by_their_place() -> None:
    settings = RouterSettings.model_validate(
        {"api_keys": ["a", {"key": "b", "name": "night", "priority": -5, "batch": True}, "c"]}
    )
    first, second, third = settings.api_keys
    assert (first.key, first.name, first.priority, first.batch) == ("a", "key 1", 0, False)
    assert (second.key, second.name, second.priority, second.batch) == ("b", "night", -5, True)
    assert third.name == default_key_name(2) == "key 3"


@pytest.mark.parametrize("priority", [-1001, 1001, 0.5, "1", True])
def test_priorities_are_whole_numbers_within_bounds(priority: object) -> None:
    with pytest.raises(ValidationError):
        ModelEntry.model_validate({"name": "a", "priority": priority})
    with pytest.raises(ValidationError):
        ApiKeyEntry.model_validate({"key": "k", "priority": priority})


@pytest.mark.parametrize(
    "name", ["min_residency_s", "max_queue_s", "ttl_s", "max_keep_alive_s", "first_byte_timeout_s"]
)
def test_where_no_time_has_a_meaning_0_is_allowed_and_less_is_not(name: str) -> None:
    assert getattr(RouterSettings.model_validate({name: 0}), name) == 0
    for value in (-1, float("inf"), float("nan"), 10**9, "5m"):
        with pytest.raises(ValidationError):
            RouterSettings.model_validate({name: value})


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RouterSettings().port = 1


@pytest.mark.parametrize("port", [0, -1, 65536, "8082", 80.5, True])
def test_ports_are_whole_numbers_from_1_to_65535(port: object) -> None:
    with pytest.raises(ValidationError):
        RouterSettings.model_validate({"port": port})


@pytest.mark.parametrize("port", [1, 65535])
def test_the_outermost_ports_are_allowed(port: int) -> None:
    assert RouterSettings(port=port).port == port


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in RouterSettings.model_fields
        if name.endswith("timeout_s") and name != "first_byte_timeout_s"
    ],
)
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), 10**9, "5"])
def test_timeouts_are_positive_and_sane(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        RouterSettings.model_validate({name: value})


@pytest.mark.parametrize(
    "host", ["", "a b", "http://x", "x/y", "x:80", "[::1]", "-x", "ho\nst", "127.0.0.1:8082"]
)
def test_what_cannot_be_listened_on_is_no_host(host: str) -> None:
    with pytest.raises(ValidationError):
        RouterSettings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost", "my-box.lan"])
def test_addresses_and_names_are_hosts(host: str) -> None:
    assert RouterSettings(host=host).host == host


def test_allowed_hosts_are_compared_in_lower_case_without_the_final_dot() -> None:
    assert RouterSettings(allowed_hosts=("My-Box.LAN.",)).allowed_hosts == ("my-box.lan",)


@pytest.mark.parametrize("key", ["", "with space", "ümlaut", "new\nline", "x" * 513])
def test_keys_fit_an_http_header(key: str) -> None:
    with pytest.raises(ValidationError):
        RouterSettings.model_validate({"api_keys": [key]})
    with pytest.raises(ValidationError):
        RouterSettings.model_validate({"api_keys": [{"key": key}]})


def test_secrets_do_not_show_in_the_settings_repr() -> None:
    settings = RouterSettings(api_keys=(ApiKeyEntry(key="canary-key"),), admin_token="canary-token")
    assert "canary" not in repr(Config(router=settings))
    assert "canary" not in repr(settings.api_keys)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\0b", "a\nb", "x" * 257])
def test_names_are_printable_and_bounded(name: str) -> None:
    with pytest.raises(ValidationError):
        ModelEntry(name=name)


def test_hub_style_names_are_names() -> None:
    assert ModelEntry(name="user/repo:Q4_K_M").name == "user/repo:Q4_K_M"


@pytest.mark.parametrize("path", ["health", "", "/a b", "/a\r\nX: y"])
def test_endpoints_are_paths(path: str) -> None:
    with pytest.raises(ValidationError):
        SpawnSettings(health_endpoint=path)
    with pytest.raises(ValidationError):
        SpawnSettings(proxy_endpoints=(path,))


def test_an_argument_cannot_hold_nul() -> None:
    with pytest.raises(ValidationError, match="NUL"):
        SpawnSettings(command=("engine", "a\0b"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:8.8.8.8", False),
        ("192.168.1.5", False),
        ("localhost.example.org", False),
        ("my-box", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_public_bind_without_keys_names_three_remedies() -> None:
    problem = public_bind_problem(RouterSettings(host="0.0.0.0"))
    assert problem is not None
    for remedy in ("router.host", "router.api_keys", "router.allow_public_without_keys"):
        assert remedy in problem


@pytest.mark.parametrize(
    "settings",
    [
        RouterSettings(),
        RouterSettings(host="0.0.0.0", api_keys=(ApiKeyEntry(key="k"),)),
        RouterSettings(host="0.0.0.0", allow_public_without_keys=True),
    ],
)
def test_each_remedy_allows_the_bind(settings: RouterSettings) -> None:
    assert public_bind_problem(settings) is None
