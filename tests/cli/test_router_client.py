import json
import socket
import threading
from pathlib import Path

import pytest

from llama_router.cli import router_client
from llama_router.cli.router_client import (
    Address,
    AddressError,
    RouterClientError,
    ask,
    find_address,
    follow,
)
from llama_router.cli.serving import Overrides
from tests.support.canned_router import canned_router


def test_where_the_router_is_follows_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")):
        path.write_text(json.dumps({"version": "1.0", "router": {"host": host, "port": 81}}))
        assert find_address(Overrides(), path) == Address(f"http://{shown}:81")
    assert find_address(Overrides(host="::", port=82), path, token="t") == Address(
        "http://[::1]:82", "t"
    )


def test_a_router_over_another_programs_config_is_found_by_it(tmp_path: Path) -> None:
    path = tmp_path / "llama-swap.yaml"
    path.write_text("apiKeys: [sk-first, sk-second]\nmodels:\n  m:\n    cmd: x ${PORT}\n")
    assert find_address(Overrides(port=82), path) == Address("http://127.0.0.1:82", "sk-first")


def test_a_router_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_client, "_TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = Address(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RouterClientError, match="did not answer within 0") as raised:
            ask(address, "GET", "/admin/status")
    assert raised.value.status == 0


@pytest.mark.parametrize(
    ("router", "token"),
    [
        ({"api_keys": ["first", "second"]}, "first"),
        ({"api_keys": [{"key": "narrow", "models": ["a"]}, "wide"]}, "wide"),
        ({"api_keys": [{"key": "chat", "scopes": ["inference"]}, "boss"]}, "boss"),
        ({"api_keys": [f"sha256:{'a' * 64}", "plain"]}, "plain"),
        ({"api_keys": [f"sha256:{'a' * 64}"]}, ""),
        ({"api_keys": ["chat"], "admin_token": "the-token"}, "the-token"),
        ({"api_keys": [{"key": "chat", "scopes": ["inference"]}]}, "chat"),
    ],
)
def test_of_the_configs_secrets_one_that_opens_the_admin_api_is_sent(
    tmp_path: Path, router: dict[str, object], token: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"version": "1.0", "router": router}))
    assert find_address(Overrides(), path).token == token
    assert find_address(Overrides(), path, token="mine").token == "mine"
    # It is this config's router's, and nobody else's.
    assert find_address(Overrides(), path, "http://other:1").token == ""


def test_a_config_that_cannot_be_read_here_does_not_stop_who_knows_the_address(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('router: {admin_token: "${env.ONLY_THE_ROUTER_HAS_IT}"}')
    with pytest.raises(AddressError, match=r"ONLY_THE_ROUTER_HAS_IT[^$]*--url"):
        find_address(Overrides(), path)
    assert find_address(Overrides(), path, "http://here:1", "t") == Address("http://here:1", "t")
    assert path.read_text().startswith("router")


@pytest.mark.parametrize(
    ("status", "error", "is_hinted"),
    [
        (401, {"code": "invalid_api_key", "param": None}, True),
        (403, {"code": "forbidden", "param": None}, True),
        (403, {"code": "forbidden", "param": "host"}, False),
        (403, {"code": "hub_refused", "param": None}, False),
    ],
)
def test_who_is_not_let_in_is_told_how_to_say_who_it_is(
    *, status: int, error: dict[str, object], is_hinted: bool
) -> None:
    with canned_router() as router:
        router.answers["GET", "/admin/keys"] = status, {"error": {"message": "no", **error}}
        with pytest.raises(RouterClientError, match="no") as raised:
            ask(Address(router.url), "GET", "/admin/keys")
    assert ("LLAMA_ROUTER_TOKEN" in str(raised.value)) == is_hinted


def _answering(listener: socket.socket, answer: bytes) -> threading.Thread:
    def serve() -> None:
        client, _address = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("last", "is_cut"), [(b"", True), (b"5\r\nhal", True), (b"0\r\n\r\n", False)]
)
def test_lines_that_are_cut_off_have_not_ended(*, last: bytes, is_cut: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = _answering(listener, head + b"9\r\none\n\ntwo\n\r\n4\r\nlast\r\n" + last)
        lines = follow(Address(f"http://127.0.0.1:{listener.getsockname()[1]}"), "/logs")
        try:
            assert [next(lines) for _ in range(3)] == ["one", "", "two"]
            if is_cut:
                with pytest.raises(RouterClientError, match="has cut this off"):
                    list(lines)
            else:
                assert list(lines) == ["last"]
        finally:
            thread.join()
