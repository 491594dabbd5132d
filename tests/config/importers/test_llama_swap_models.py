from pathlib import Path

import pytest

from tests.config.importers.swaps import FILES, model, of, read


def test_a_model_is_carried_whole() -> None:
    foreign = read(FILES / "llama-swap.yaml")
    entry = model(foreign, "filtered")
    assert entry["spawn"] == {
        "command": [
            *("engine", "--quick", "--port", "9001", "--alias", "filtered", "--tokens", "3"),
            *("--note", "two words", "--dollar", "$$HOME"),
        ],
        "address": "http://127.0.0.1:9001",
        "health_endpoint": "/health",
        "env": {"SHOWN": "0.75", "TWICE": "a=b"},
    }
    assert entry["metadata"] == {
        "temperature": 0.75,
        "port": 9001,
        "note": "filtered at 9001 with 0.75",
        "list": [1, 1.5, 3, "of filtered"],
        "object": {"a": "1", "c": [0.75, False]},
    }
    assert entry["filters"] == {
        "strip_params": ["temperature", "top_p"],
        "set_params": {"seed": 7, "stop": None, "options": {"depth": [1, "two", 3.5]}},
        "set_params_by_id": {
            "filtered": {"effort": "medium"},
            "filtered:high": {"effort": "high", "seed": 8},
        },
    }
    kept = {
        "title": "Filtered filtered",
        "description": "Changes what it is asked",
        "ttl_s": 0,
        "stop_grace_s": 2,
        "use_model_name": "vendor/Filtered-7B",
        "aliases": ["gpt-4o-mini", "filtered:high"],
        "max_requests": 2,
        "notify_model_swap": True,
        "connection_timeout_s": 10,
        "first_byte_timeout_s": 60,
        "group": "(default)",
        "priority": 5,
    }
    assert {key: entry[key] for key in kept} == kept
    assert entry["capabilities"]["context"] == 32000


def test_ports_are_taken_in_turn_unless_a_model_shows_its_own() -> None:
    foreign = read(FILES / "llama-swap.yaml")
    assert "address" not in model(foreign, "plain")["spawn"]
    assert "$port" in model(foreign, "plain")["spawn"]["command"]
    # Those are given from behind the numbers that models keep.
    assert foreign.config.router.base_port == 9002
    fixed = model(foreign, "fixed")["spawn"]
    assert fixed["address"] == "http://127.0.0.1:9999"
    assert fixed["health_endpoint"] == "none"
    assert fixed["stop_command"] == ["${env.STOPPER}", "$pid", "fixed"]


def test_a_model_that_shows_its_port_needs_no_proxy_for_it(tmp_path: Path) -> None:
    text = (
        "startPort: 9100\nmodels:\n  m:\n    cmd: server --port ${PORT}\n"
        '    metadata: {port: "${PORT}"}\n'
    )
    entry = model(of(tmp_path, text), "m")
    assert entry["metadata"] == {"port": 9100}
    assert entry["spawn"] == {
        "command": ["server", "--port", "9100"],
        "address": "http://127.0.0.1:9100",
    }


@pytest.mark.parametrize(
    ("proxy", "address", "owner_check"),
    [
        ("http://localhost:${PORT}", None, None),
        ("http://127.0.0.1:${PORT}/", None, None),
        ("http://localhost:9", "http://127.0.0.1:9", None),
        ("http://10.0.0.5", "http://10.0.0.5:80", "port"),
        ("http://gpu:${PORT}", "http://gpu:$port", "port"),
        ("http://[::1]:9", "http://127.0.0.1:9", None),
    ],
)
def test_engines_are_asked_where_the_proxy_says(
    tmp_path: Path, proxy: str, address: str | None, owner_check: str | None
) -> None:
    text = f"models:\n  m:\n    cmd: server --port ${{PORT}}\n    proxy: {proxy}\n"
    spawn = model(of(tmp_path, text), "m")["spawn"]
    assert (spawn.get("address"), spawn.get("owner_check")) == (address, owner_check)


def test_a_launchers_engine_is_not_looked_for_below_it(tmp_path: Path) -> None:
    text = "models:\n  m:\n    cmd: /usr/bin/docker run --rm -p ${PORT}:8080 image\n"
    assert model(of(tmp_path, text), "m")["spawn"]["owner_check"] == "port"


def test_commands_are_split_as_on_the_platform(tmp_path: Path) -> None:
    path = tmp_path / "llama-swap.yaml"
    path.write_text("models:\n  m:\n    cmd: C:\\bin\\server.exe --port ${PORT} 'a b'\n")
    spawn = model(read(path, {}, "win32"), "m")["spawn"]
    assert spawn["command"] == ["C:\\bin\\server.exe", "--port", "$port", "'a", "b'"]
