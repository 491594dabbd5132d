import json
import socket
from pathlib import Path

import pytest

from llama_router.cli import router_client
from llama_router.cli.router_client import Address, RouterClientError, ask, find_address
from llama_router.cli.serving import Overrides


def test_where_the_router_is_follows_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")):
        path.write_text(json.dumps({"version": "1.0", "router": {"host": host, "port": 81}}))
        assert find_address(Overrides(), path) == Address(f"http://{shown}:81")
    assert find_address(Overrides(host="::", port=82), path, token="t") == Address(
        "http://[::1]:82", "t"
    )


def test_a_router_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_client, "_TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = Address(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RouterClientError, match="did not answer within 0") as raised:
            ask(address, "GET", "/admin/status")
    assert raised.value.status == 0
