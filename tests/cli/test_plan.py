"""``llama-router plan`` against something that answers as a router would."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llama_router.cli import router_client
from llama_router.cli.main import app

MIB = 2**20
PLAN: dict[str, Any] = {
    "model": "alpha",
    "state": "unloaded",
    "fits": True,
    "reason": "in place of beta",
    "wait_s": 12.34,
    "load_cost_s": 10.0,
    "needs": {"cuda0": 4096 * MIB, "cpu": 512 * MIB},
    "free": {"cpu": 16000 * MIB, "cuda0": -MIB},
    "victims": [
        {"model": "beta", "reason": "not used for 12 s; the least loss", "in_flight": 0},
        {"model": "gamma", "reason": "in use; the least loss", "in_flight": 2},
    ],
}
TABLE = """\
alpha is unloaded: in place of beta

MiB        cuda0      cpu
needs     4096.0    512.0
free now    -1.0  16000.0

would go:
  beta: not used for 12 s; the least loss
  gamma: in use; the least loss; it answers 2 requests now

a request would be served in about 12.3 s
"""


class Router(HTTPServer):
    """Answers every request with ``answer`` and keeps what it was asked."""

    answer: tuple[int, bytes] = (200, b"")
    asked: list[tuple[str, bytes, str | None]]
    keys: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Router

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, body, self.headers["authorization"]))
        self.server.keys.append(self.headers["x-api-key"])
        status, content = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


@pytest.fixture
def router() -> Iterator[Router]:
    with Router(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.keys = []
        server.answer = (200, json.dumps(PLAN).encode())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(*arguments: str) -> tuple[int, str, str]:
    env = {"COLUMNS": "100", "NO_COLOR": "1", "LLAMA_ROUTER_TOKEN": ""}
    result = CliRunner(env=env).invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def config_of(tmp_path: Path, **settings: object) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"version": "1.0", "router": settings}))
    return str(path)


def test_a_plan_is_a_table_for_people_or_json(router: Router) -> None:
    assert run("plan", "alpha", "--url", router.url) == (0, TABLE, "")
    status, text, _ = run("plan", "alpha", "--url", f"{router.url}/v1/", "--json")
    assert (status, json.loads(text)) == (0, PLAN)
    assert router.asked == [("/admin/plan", b'{"model": "alpha"}', None)] * 2


@pytest.mark.parametrize(
    ("changes", "status", "last"),
    [
        ({"wait_s": 0}, 0, "a request would be served at once"),
        ({"wait_s": None}, 1, "a request would be refused"),
        (
            {"wait_s": None, "fits": False},
            1,
            "a request would be refused: the model does not fit",
        ),
    ],
)
def test_the_exit_status_tells_whether_it_would_be_served(
    router: Router, changes: dict[str, object], status: int, last: str
) -> None:
    bare: dict[str, object] = {"needs": {}, "free": {}, "victims": []}
    router.answer = (200, json.dumps({**PLAN, **bare, **changes}).encode())
    found, text, _ = run("plan", "alpha", "--url", router.url)
    assert found == status
    assert text == f"alpha is unloaded: in place of beta\n\n{last}\n"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"state": "loaded", "reason": "it is loaded"}, "alpha is loaded"),
        ({"state": "loading", "reason": "it is being loaded"}, "alpha is being loaded"),
        (
            {"state": "loaded", "reason": "it is loaded, but has all the requests it can take"},
            "alpha is loaded, but has all the requests it can take",
        ),
        (
            {"state": "backing_off", "reason": "crashed: out of memory"},
            "alpha is backing off: crashed: out of memory",
        ),
    ],
)
def test_the_first_line_says_nothing_twice(
    router: Router, changes: dict[str, object], first: str
) -> None:
    router.answer = (200, json.dumps({**PLAN, **changes}).encode())
    assert run("plan", "alpha", "--url", router.url)[1].splitlines()[0] == first


def test_what_a_router_says_cannot_play_with_the_terminal(router: Router) -> None:
    router.answer = (200, json.dumps({**PLAN, "reason": "\x1b[2Jgone"}).encode())
    assert "\x1b" not in run("plan", "alpha", "--url", router.url)[1]


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [
        ({}, None),
        ({"api_keys": ["key-1", "key-2"]}, "Bearer key-1"),
        # It opens all that a command asks for.
        ({"api_keys": ["key-1"], "admin_token": "admin"}, "Bearer admin"),
        ({"admin_token": "admin"}, "Bearer admin"),
    ],
)
def test_address_and_key_are_the_configs(
    router: Router,
    tmp_path: Path,
    secrets: dict[str, object],
    expected: str | None,
) -> None:
    config = config_of(
        tmp_path,
        host="0.0.0.0",
        port=router.server_port,
        allow_public_without_keys=True,
        **secrets,
    )
    assert run("plan", "alpha", "--config", config)[0] == 0
    assert run("--config", config, "plan", "alpha")[0] == 0
    assert run("plan", "alpha", "--config", config, "--token", "other")[0] == 0
    # Another router gets no key of this one.
    assert run("plan", "alpha", "--config", config, "--url", router.url)[0] == 0
    tokens = [token for _, _, token in router.asked]
    assert tokens == [expected, expected, "Bearer other", None]
    assert router.keys == [None] * 4


def test_a_port_of_the_command_line_counts_for_more_than_the_configs(
    router: Router, tmp_path: Path
) -> None:
    config = config_of(tmp_path, port=1)
    assert run("--config", config, "--port", str(router.server_port), "plan", "alpha")[0] == 0


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((404, b'{"error":{"message":"no model alpha"}}'), 2, "no model alpha"),
        ((401, b'{"error":{"message":"no key"}}'), 1, "no key"),
        ((200, b"<html>"), 1, "is no llama-router"),
        ((200, b"[" * 100_000), 1, "is no llama-router"),
        ((502, b"{}"), 1, "is no llama-router"),
        ((200, b"{}"), 1, "of another version"),
    ],
)
def test_what_is_no_plan_is_said(
    router: Router, answer: tuple[int, bytes], status: int, said: str
) -> None:
    router.answer = answer
    found, text, error = run("plan", "alpha", "--url", router.url)
    assert (found, text) == (status, "")
    assert said in error
    assert error.startswith("llama-router: ")


def test_an_answer_without_end_is_cut(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_client, "_MAX_ANSWER_BYTES", 10)
    status, _, error = run("plan", "alpha", "--url", router.url)
    assert (status, "is no llama-router" in error) == (1, True)


def test_without_a_router_it_says_how_to_start_one() -> None:
    with socket.socket() as deaf:
        # Taken, so that nobody else answers there, and nobody listens.
        deaf.bind(("127.0.0.1", 0))
        status, _, error = run(
            "plan", "alpha", "--url", f"http://127.0.0.1:{deaf.getsockname()[1]}"
        )
    assert status == 1
    assert "no router answers at" in error
    assert "start one with `llama-router`" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "localhost:80"),
        ("--url", "http://"),
        ("--url", "http://h:port"),
        ("--url", "http://h/a b"),
        ("--config", "missing.yaml"),
        ("--token", "two\nlines"),
    ],
)
def test_an_address_that_makes_no_sense_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    status, text, error = run("plan", "alpha", *arguments)
    assert (status, text) == (2, "")
    assert error.startswith("llama-router: ")
