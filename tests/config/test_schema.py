import pytest
from pydantic import BaseModel, ValidationError

from llama_router.config.schema import (
    DEFAULT_COMMAND,
    Config,
    ModelEntry,
    RouterSettings,
    SpawnOverride,
    SpawnSettings,
    is_loopback,
    public_bind_problem,
)
from llama_router.config.validate import SECTIONS


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
    required = {"name": "a"} if section is ModelEntry else {}
    made = section.model_validate(required)
    content = made.model_dump(exclude_none=True)
    assert section.model_validate(content) == made


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
    "name", [name for name in RouterSettings.model_fields if name.endswith("timeout_s")]
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
        RouterSettings(api_keys=(key,))


def test_secrets_do_not_show_in_the_settings_repr() -> None:
    settings = RouterSettings(api_keys=("canary-key",), admin_token="canary-token")
    assert "canary" not in repr(Config(router=settings))


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


def test_spawn_of_a_model_takes_what_it_does_not_override_from_the_default() -> None:
    config = Config(
        default_spawn=SpawnSettings(proxy_endpoints=("/v1/",), health_endpoint="/up"),
        models=(
            ModelEntry(name="a"),
            ModelEntry(name="b", spawn=SpawnOverride(command=("x", "$port"), owner_check="port")),
        ),
    )
    plain, special = config.models
    assert config.spawn_of() == config.default_spawn
    assert config.spawn_of(plain) == config.default_spawn
    assert config.spawn_of(special) == SpawnSettings(
        command=("x", "$port"),
        proxy_endpoints=("/v1/",),
        health_endpoint="/up",
        owner_check="port",
    )


def test_the_load_deadline_grows_with_the_size() -> None:
    settings = RouterSettings(ready_timeout_s=60, ready_bytes_per_s=50_000_000)
    assert settings.load_deadline_s(0) == 60
    assert settings.load_deadline_s(5_000_000_000) == 160


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
        RouterSettings(host="0.0.0.0", api_keys=("k",)),
        RouterSettings(host="0.0.0.0", allow_public_without_keys=True),
    ],
)
def test_each_remedy_allows_the_bind(settings: RouterSettings) -> None:
    assert public_bind_problem(settings) is None
