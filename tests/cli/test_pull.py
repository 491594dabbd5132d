"""``pull`` and ``rm`` against a fake hub, with a router and without one."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llama_router.cli.main import app as main_app
from llama_router.cli.pull import pull, rm
from tests.support.canned_router import CannedRouter, canned_router
from tests.support.fake_hub import FakeHub, Repo, content
from tests.support.in_thread import running_hub

# Ctrl-C is nothing for what a shell has put in the background, as it may have these tests.
RUN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "import typer; from llama_router.cli.pull import pull, rm;"
    "app = typer.Typer(); app.command()(pull); app.command()(rm); app()"
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    files = {"m-Q8_0.gguf": content(400_000), "m-Q4_0.gguf": content(300_000, 2)}
    with running_hub(FakeHub({"org/m": Repo(files)})) as made:
        yield made


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return {
        **kept,
        "HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": hub.url,
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    # Nobody listens there.
    path.write_text('version: "1.0"\nrouter:\n  port: 9\n')
    return path


def run(env: dict[str, str], config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    argv = [sys.executable, "-P", "-c", RUN, command, "--config", str(config), *rest]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=50, check=False)


def test_without_a_router_it_downloads_and_removes_itself(
    env: dict[str, str], config: Path, tmp_path: Path
) -> None:
    done = run(env, config, "pull", "org/m")
    assert (done.returncode, done.stdout) == (
        0,
        f"org/m:Q8_0 (390.6 KiB) is in {tmp_path / 'cache'}\n",
    )
    assert "org/m: 100 % of 390.6 KiB" in done.stderr
    as_json = run(env, config, "pull", "org/m", "--file", "m-Q4_0.gguf", "--json")
    assert json.loads(as_json.stdout)["model"] == "org/m:Q4_0"
    removed = run(env, config, "rm", "org/m:Q8_0")
    assert removed.stdout == "deleted org/m:Q8_0: 390.6 KiB freed\n"
    # Nothing else than what is named is deleted.
    other = run(env, config, "rm", "org/m")
    assert (other.returncode, "there is: org/m:Q4_0" in other.stderr) == (2, True)


@pytest.mark.parametrize("name", ["org/m:Q8_0", "org/m", "m-Q8_0.gguf", "mine"])
def test_the_startup_model_is_removed_by_force_only_and_the_config_forgets_it(
    env: dict[str, str], config: Path, name: str
) -> None:
    assert run(env, config, "pull", "org/m").returncode == 0
    entry = "models:\n  - name: org/m:Q8_0\n    state: auto\n    aliases: [mine]\n"
    config.write_text(f"{config.read_text()}startup_model: {name}  # my favourite\n{entry}")
    refused = run(env, config, "rm", "org/m:Q8_0")
    assert refused.returncode == 1
    assert "startup_model" in refused.stderr
    assert "--force" in refused.stderr
    done = run(env, config, "rm", "org/m:Q8_0", "--force")
    assert (done.returncode, done.stdout) == (0, "deleted org/m:Q8_0: 390.6 KiB freed\n")
    assert 'startup_model: ""  # my favourite\n' in config.read_text()


def test_refusals_have_words_and_a_status(env: dict[str, str], config: Path) -> None:
    for reference, status, words in (
        ("nonsense", 2, "write it as user/repo"),
        ("org/m:Q2_K", 2, "there are: Q4_0, Q8_0"),
        ("org/none", 1, "set HF_TOKEN"),
    ):
        refused = run(env, config, "pull", reference)
        assert (refused.returncode, words in refused.stderr) == (status, True), refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_stopped_by_hand_it_says_that_nothing_is_lost(
    hub: FakeHub, env: dict[str, str], config: Path
) -> None:
    hub.faults.stall_after = [200_000]
    is_stalled = threading.Event()
    hub.on_chunk = lambda sent: is_stalled.set() if sent >= 200_000 else None
    argv = [sys.executable, "-P", "-c", RUN, "pull", "--config", str(config), "org/m:Q8_0"]
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert is_stalled.wait(30)
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "what has come is kept, and `llama-router pull org/m:Q8_0` goes on" in said
    assert "Traceback" not in said
    assert run(env, config, "pull", "org/m:Q8_0").returncode == 0


def test_beside_a_router_that_does_not_answer_nothing_is_removed(
    env: dict[str, str], config: Path, tmp_path: Path
) -> None:
    assert run(env, config, "pull", "org/m").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        config.write_text(f'version: "1.0"\nrouter:\n  port: {listener.getsockname()[1]}\n')
        done = run(env, config, "rm", "org/m", "--yes")
        thread.join()
    assert (done.returncode, "cannot be asked" in done.stderr) == (1, True)
    assert list((tmp_path / "cache").rglob("m-Q8_0.gguf"))


class Api(BaseHTTPRequestHandler):
    """A router's API with one download, which is complete when asked for the third time."""

    asked: list[str]
    state = "running"

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer()

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        if self.path.startswith("/admin/models/"):
            self._send(200, {"model": {"source": "hub_cache"}})
        else:
            self._answer()

    def do_DELETE(self) -> None:
        self.asked.append(f"DELETE {self.path}")
        refusals = {
            "loaded": "unload it first, or say force=true",
            "first": "take it out of the config's startup_model, or say force=true",
        }
        message = refusals.get(self.path.rpartition("/")[2])
        if message:
            body = {"error": {"message": message, "type": "x", "param": None, "code": "x"}}
            self._send(409, body)
        else:
            self._send(200, {"success": True, "model": "m", "files": [], "freed_bytes": 2048})

    def _answer(self) -> None:
        is_done = len(self.asked) > 2
        shown = {
            "id": "3",
            "state": "complete" if is_done else "running",
            "model": "org/m:Q8_0",
            "done_bytes": 10 if is_done else 5,
            "total_bytes": 10,
            "note": "a note",
            "error": "",
            "error_code": "",
        }
        self._send(200, shown)

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@pytest.fixture
def router() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Api,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_running_router_does_it(router: tuple[str, list[str]]) -> None:
    import typer

    url, asked = router
    app = typer.Typer()
    app.command()(pull)
    done = CliRunner().invoke(app, ["org/m:Q8_0", "--url", url])
    assert (done.exit_code, done.stdout) == (0, "org/m:Q8_0 (10 B) is there\n")
    assert "a note" in done.stderr
    assert asked == ["POST /admin/downloads", "GET /admin/downloads/3", "GET /admin/downloads/3"]


def test_a_running_routers_startup_model_is_removed_by_force_only(
    router: tuple[str, list[str]],
) -> None:
    import typer

    url, _asked = router
    app = typer.Typer()
    app.command()(rm)
    refused = CliRunner().invoke(app, ["org/first", "--url", url])
    assert refused.exit_code == 1
    assert "startup_model" in refused.stderr
    assert "--force" in refused.stderr
    assert "force=true" not in refused.stderr


def test_a_loaded_model_is_removed_by_force_only(router: tuple[str, list[str]]) -> None:
    import typer

    url, asked = router
    app = typer.Typer()
    app.command()(rm)
    refused = CliRunner().invoke(app, ["org/loaded", "--url", url])
    assert (refused.exit_code, "--force" in refused.stderr) == (1, True)
    done = CliRunner().invoke(app, ["org/loaded", "--force", "--url", url])
    assert (done.exit_code, done.stdout) == (0, "deleted m: 2.0 KiB freed\n")
    assert asked[-1] == "DELETE /admin/models/org/loaded?force=true"


OWN = {"id": "mine", "source": "models_dir", "path": "/m/mine\x1b.gguf", "size_bytes": 2048}
DELETED = {"success": True, "model": "mine", "files": ["/m/mine.gguf"], "freed_bytes": 2048}


class Terminal(io.StringIO):
    """Where a person types and reads."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def own() -> Iterator[CannedRouter]:
    """Run a router with a model in a folder of the person's own."""
    with canned_router() as server:
        server.answers["GET", "/admin/models/mine"] = 200, {"model": OWN}
        server.answers["DELETE", "/admin/models/mine"] = 200, DELETED
        yield server


def test_what_is_in_a_folder_of_ones_own_is_deleted_by_who_says_so(own: CannedRouter) -> None:
    refused = CliRunner().invoke(main_app, ["rm", "mine", "--url", own.url])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "/m/mine\\x1b.gguf (2.0 KiB) is in a folder of yours; --yes deletes" in refused.stderr
    assert [asked.method for asked in own.asked] == ["GET"]
    done = CliRunner().invoke(main_app, ["rm", "mine", "--yes", "--url", own.url])
    assert (done.exit_code, done.stdout) == (0, "deleted mine: 2.0 KiB freed\n")


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1), ("", 1)])
def test_a_person_at_a_terminal_is_asked(
    own: CannedRouter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    status: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(SystemExit) as ended:
        main_app(["rm", "mine", "--url", own.url])
    assert ended.value.code == status
    asked = shown.getvalue()
    assert "is in a folder of yours. Delete it? [y/N]" in asked
    assert ("nothing is deleted" in asked) == bool(status)
    assert [one.method for one in own.asked] == ["GET", "DELETE"][: 2 - status]
    assert ("freed" in capsys.readouterr().out) == (not status)


def test_what_a_cache_holds_is_deleted_without_a_question(own: CannedRouter) -> None:
    own.answers["GET", "/admin/models/mine"] = 200, {"model": OWN | {"source": "hub_cache"}}
    assert CliRunner().invoke(main_app, ["rm", "mine", "--url", own.url]).exit_code == 0
