from llama_router.config.schema import RouterSettings
from llama_router.proxy.server import PlaneSettings
from llama_router.runtime.keys import config_rules
from llama_router.runtime.plane import guard_of, plane_settings


def test_every_setting_of_the_data_plane_comes_from_the_config() -> None:
    settings = RouterSettings.model_validate({"read_timeout_s": 7.0, "half_close": "serve"})
    given = plane_settings(settings)
    assert set(given) == set(PlaneSettings.__annotations__)
    assert given["read_timeout_s"] == 7.0
    assert given["abort_on_half_close"] is False


def test_the_guard_knows_the_keys() -> None:
    settings = RouterSettings.model_validate({"api_keys": [{"key": "k" * 20, "name": "me"}]})
    guard = guard_of(settings, config_rules(settings))
    assert [caller.key for caller in guard.callers] == ["me"]
