"""A llama-swap config that uses every documented key, run as it is, with real processes."""

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.support.chat import CHAT, body, deltas, error_of
from tests.support.fake_engine_control import SCRIPT, FakeEngine, FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import DEADLINE_S, RouterProcess, launched
from tests.support.scripted_engine import ScriptedEngine, answer

pytestmark = pytest.mark.asyncio

FIXTURES = Path(__file__).parents[1] / "config" / "importers" / "files"
KEY = {"authorization": "Bearer sk-first"}


class Swap:
    """A router over a llama-swap config, and what its tests look at."""

    def __init__(self, router: RouterProcess, fakes: FakeEngines, peer: ScriptedEngine) -> None:
        self.router = router
        self.fakes = fakes
        self.peer = peer

    async def ask(self, model: str, **rest: object) -> httpx2.Response:
        return await self.router.client.post(CHAT, json=body(model, **rest))

    async def asked(self, model: str, by: str = "", **rest: object) -> dict[str, Any]:
        """Ask, and give what the engine called ``by`` (else as the model) got."""
        response = await self.ask(model, **rest)
        assert response.status_code == 200, response.text
        engine = next(e for e in reversed(self.fakes.engines) if e.alias == (by or model))
        return dict(json.loads((await engine.state())["last_request"]["body"]))

    async def loaded(self) -> set[str]:
        """Name the models that are loaded."""
        listed = (await self.router.client.get("/admin/models")).json()["models"]
        return {model["id"] for model in listed if model["state"] == "loaded"}


@contextlib.asynccontextmanager
async def started(
    tmp_path: Path, fakes: FakeEngines, config: Path, *flags: str, arguments: tuple[str, ...] = ()
) -> AsyncIterator[Swap]:
    port = port_window()
    stopper = tmp_path / "stopper"
    stopper.write_text(
        f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "stopped"))}\nkill $1\n'
    )
    stopper.chmod(0o755)
    engine = [sys.executable, "-I", "-S", "-E", str(SCRIPT), "--control", fakes.address, *flags]
    peer_answer = answer(b'{"object": "chat.completion", "choices": []}')
    async with ScriptedEngine(peer_answer) as peer:
        env = {
            "ENGINE": shlex.join(engine),
            "START_PORT": str(port + 1),
            "FIXED_PORT": str(port + 19),
            "KEY": "sk-first",
            "STOPPER": str(stopper),
            "PEER": f"http://127.0.0.1:{peer.port}/api",
            "PEER_KEY": "peer-secret",
        }
        async with launched(tmp_path, config, *arguments, port=port, env=env) as router:
            router.client.headers.update(KEY)
            await router.listening()
            yield Swap(router, fakes, peer)


@pytest_asyncio.fixture
async def swap(tmp_path: Path, fakes: FakeEngines) -> AsyncIterator[Swap]:
    config = tmp_path / "llama-swap.yaml"
    shutil.copy(FIXTURES / "llama-swap.yaml", config)
    async with started(tmp_path, fakes, config) as swap:
        yield swap


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "llama-swap.yaml"
    path.write_text(text)
    return path


def environment_of(engine: FakeEngine) -> dict[str, str]:
    pairs = Path(f"/proc/{engine.pid}/environ").read_bytes().split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)


async def test_it_starts_says_that_it_leaves_something_out_and_preloads(swap: Swap) -> None:
    await swap.router.says("settings have no effect here (logTimeFormat, logToStdout, ")
    await swap.fakes.started("always")
    await swap.router.becomes("always", "loaded")
    assert await swap.loaded() == {"always"}


async def test_its_keys_are_asked_for(swap: Swap) -> None:
    async with httpx2.AsyncClient(base_url=swap.router.url, trust_env=False) as stranger:
        assert (await stranger.get("/v1/models")).status_code == 401
        second = {"authorization": "Bearer sk-second"}
        assert (await stranger.get("/v1/models", headers=second)).status_code == 200
    assert (await swap.router.client.get("/v1/models")).status_code == 200


async def test_macros_port_and_environment_reach_the_engine(swap: Swap) -> None:
    await swap.asked("filtered")
    engine = await swap.fakes.started("filtered")
    argv = engine.argv[engine.argv.index("--port") :]
    port = swap.router.port + 2  # the second that uses ${PORT}, by name
    assert argv == [
        *("--port", str(port), "--alias", "filtered", "--tokens", "3"),
        *("--note", "two words", "--dollar", "$HOME"),
    ]
    variables = environment_of(engine)
    assert (variables["SHOWN"], variables["TWICE"]) == ("0.75", "a=b")


async def test_requests_are_filtered_by_the_name_that_was_asked_for(swap: Swap) -> None:
    sent: dict[str, Any] = {"temperature": 1, "top_p": 0.5, "seed": 1, "stop": "x", "user": "me"}
    got = await swap.asked("filtered", **sent)
    messages = body("filtered")["messages"]
    common = {"model": "vendor/Filtered-7B", "messages": messages, "user": "me", "stop": None}
    common["options"] = {"depth": [1, "two", 3.5]}
    assert got == {**common, "seed": 7, "effort": "medium"}
    assert await swap.asked("filtered:high", "filtered", **sent) == {
        **common,
        "seed": 8,
        "effort": "high",
    }
    assert await swap.asked("gpt-4o-mini", "filtered", **sent) == {**common, "seed": 7}
    # Other models get what was sent.
    assert await swap.asked("plain", **sent) == {**body("plain"), **sent}


async def test_lists_show_what_the_config_says(swap: Swap) -> None:
    listed = (await swap.router.client.get("/v1/models")).json()["data"]
    models = {model["id"]: model for model in listed}
    assert "hidden" not in models
    assert {"filtered", "gpt-4o-mini", "filtered:high", "any-of-the-swap"} <= set(models)
    filtered = models["filtered"]
    assert filtered["aliases"] == ["gpt-4o-mini", "filtered:high"]
    assert filtered["description"] == "Changes what it is asked"
    shown = filtered["meta"]["llamaswap"]
    assert shown["note"] == f"filtered at {swap.router.port + 2} with 0.75"
    assert (shown["port"], shown["temperature"]) == (swap.router.port + 2, 0.75)
    assert filtered["name"] == "Filtered filtered"
    assert filtered["architecture"]["input_modalities"] == ["text", "image"]
    assert filtered["capabilities"]["function_calling"] is True
    assert filtered["context_length"] == 32000
    assert (await swap.ask("hidden")).status_code == 200


async def test_groups_say_what_runs_side_by_side(swap: Swap) -> None:
    await swap.router.becomes("always", "loaded")
    for model, wanted in (
        ("swap-a", {"swap-a"}),
        ("swap-b", {"swap-b"}),
        ("side-a", {"swap-b", "side-a"}),
        ("side-b", {"swap-b", "side-a", "side-b"}),
        ("swap-a", {"swap-a"}),
        ("plain", {"plain"}),
    ):
        assert (await swap.ask(model)).status_code == 200
        assert await swap.loaded() == {"always", *wanted}, model


async def test_a_fixed_port_is_asked_and_its_own_command_stops_it(
    swap: Swap, tmp_path: Path
) -> None:
    assert (await swap.ask("fixed")).status_code == 200
    engine = await swap.fakes.started("fixed")
    assert str(swap.router.port + 19) in engine.argv
    assert (await swap.ask("plain")).status_code == 200
    await engine.gone()
    assert (tmp_path / "stopped").read_text() == f"{engine.pid} fixed\n"


async def test_a_model_goes_when_its_time_is_over(swap: Swap) -> None:
    assert (await swap.ask("hidden")).status_code == 200
    engine = await swap.fakes.started("hidden")
    await engine.gone()
    await swap.router.becomes("hidden", "unloaded")


async def test_selectors_lead_to_one_of_their_targets(swap: Swap) -> None:
    assert (await swap.asked("any-of-the-swap", "swap-a"))["model"] == "swap-a"
    assert (await swap.ask("swap-b")).status_code == 200
    assert (await swap.asked("any-of-the-swap", "swap-b"))["model"] == "swap-b"
    assert (await swap.asked("first", "plain"))["model"] == "plain"


async def test_a_selector_spills_over_to_the_next(tmp_path: Path, fakes: FakeEngines) -> None:
    config = tmp_path / "llama-swap.yaml"
    shutil.copy(FIXTURES / "llama-swap.yaml", config)
    async with started(tmp_path, fakes, config, "--gate-stream") as swap:
        asking = asyncio.create_task(swap.ask("overflow", stream=True))
        first = await fakes.started("side-a")
        await first.event("stream_started")
        also = asyncio.create_task(swap.ask("overflow", stream=True))
        second = await fakes.started("side-b")
        await second.event("stream_started")
        for engine, task in ((first, asking), (second, also)):
            await engine.finish()
            assert (await task).status_code == 200


async def test_profiles_pin_names_and_are_switched_while_it_runs(swap: Swap) -> None:
    assert (await swap.asked("helper", "filtered"))["model"] == "vendor/Filtered-7B"
    for name in ("forbidden", "nothing"):
        refused = await swap.ask(name)
        assert refused.status_code == 404
        assert error_of(refused)["code"] == "model_not_found"
    changed = await swap.router.client.put("/admin/profiles/active", json={"name": "writing"})
    assert changed.status_code == 200, changed.text
    assert (await swap.asked("helper", "plain"))["model"] == "plain"


async def test_models_of_peers_are_theirs_with_their_key_and_filters(swap: Swap) -> None:
    answer = await swap.ask("far", top_k=3, temperature=1)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "chat.completion"
    (request,) = (r for r in swap.peer.requests if r.line.startswith(b"POST"))
    assert request.line == b"POST /api/v1/chat/completions HTTP/1.1"
    assert request.fields[b"authorization"] == b"Bearer peer-secret"
    assert b"sk-first" not in request.head
    assert json.loads(request.body) == body("far", temperature=1, provider={"zdr": True})
    qualified = await swap.ask("elsewhere/vendor/farther")
    assert qualified.status_code == 200, qualified.text
    assert json.loads(swap.peer.requests[-1].body)["model"] == "vendor/farther"


async def test_more_requests_than_a_model_may_have_are_refused(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    config = tmp_path / "llama-swap.yaml"
    shutil.copy(FIXTURES / "llama-swap.yaml", config)
    async with started(tmp_path, fakes, config, "--gate-stream") as swap:
        asking = [asyncio.create_task(swap.ask("filtered", stream=True)) for _ in range(2)]
        engine = await fakes.started("filtered")
        for _ in asking:
            await engine.event("stream_started")
        refused = await swap.ask("filtered")
        assert refused.status_code == 429
        assert error_of(refused)["code"] == "queue_full"
        await engine.finish()
        for task in asking:
            # sendLoadingState: it told them about the load.
            assert deltas((await task).text, "reasoning_content")


async def test_paths_that_are_to_be_ignored_load_nothing(swap: Swap) -> None:
    ignored = await swap.router.client.post("/upstream/plain/app.js", json={})
    assert ignored.status_code == 409, ignored.text
    assert "plain" not in await swap.loaded()
    chat = await swap.router.client.post(f"/upstream/plain{CHAT}", json=body("plain"))
    assert chat.status_code == 200, chat.text
    assert "plain" in await swap.loaded()


MATRIX = """
startPort: ${env.START_PORT}
matrix:
  vars: {g: gemma, v: voice}
  evict_costs: {v: 50}
  sets:
    standard: "(g | qwen) & v"
    pictures: "(g | qwen) & paint"
models:
  gemma: &model
    cmd: ${env.ENGINE} --alias ${MODEL_ID} --port ${PORT}
  qwen: *model
  voice: *model
  paint: *model
  alone: *model
"""


async def test_a_matrix_says_which_models_run_together(tmp_path: Path, fakes: FakeEngines) -> None:
    async with started(tmp_path, fakes, written(tmp_path, MATRIX)) as swap:
        for model, wanted in (
            ("gemma", {"gemma"}),
            ("voice", {"gemma", "voice"}),
            ("qwen", {"qwen", "voice"}),
            ("paint", {"qwen", "paint"}),
            ("voice", {"qwen", "voice"}),
            ("alone", {"alone"}),
            ("gemma", {"gemma"}),
        ):
            assert (await swap.ask(model)).status_code == 200
            assert await swap.loaded() == wanted, model


async def test_models_without_groups_take_turns(tmp_path: Path, fakes: FakeEngines) -> None:
    text = "startPort: ${env.START_PORT}\nmodels:\n"
    for name in "ab":
        text += f"  {name}:\n    cmd: ${{env.ENGINE}} --alias {name} --port ${{PORT}}\n"
    async with started(tmp_path, fakes, written(tmp_path, text)) as swap:
        for name in "aba":
            assert (await swap.ask(name)).status_code == 200
            assert await swap.loaded() == {name}


async def test_a_changed_file_is_followed_and_a_broken_one_is_told(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    model = "    cmd: ${env.ENGINE} --alias ${MODEL_ID} --port ${PORT}\n"
    start = "startPort: ${env.START_PORT}\n"
    config = written(tmp_path, f"{start}models:\n  one:\n{model}")
    async with started(tmp_path, fakes, config) as swap:
        assert (await swap.ask("one")).status_code == 200
        config.write_text(f"{start}models:\n  one:\n{model}  two:\n{model}    ttl: never\n")
        broken = await swap.router.client.post("/admin/reload")
        assert broken.status_code == 400
        assert f"{config}:7:5: models.two.ttl: must be a whole number" in broken.text
        config.write_text(
            f"{start}groups: {{g: {{swap: false, members: [one, two]}}}}\nmodels:\n  one:\n"
            f"{model}  two:\n{model}"
        )
        assert (await swap.router.client.post("/admin/reload")).status_code == 200
        assert (await swap.ask("two")).status_code == 200
        assert await swap.loaded() == {"one", "two"}
        assert len(fakes.engines) == 2


async def test_what_is_imported_runs_as_the_original_does(
    tmp_path: Path, fakes: FakeEngines
) -> None:
    source = FIXTURES / "llama-swap.yaml"
    written_to = tmp_path / "config.yaml"
    command = [sys.executable, "-m", "llama_router", "import", "llama-swap", str(source)]
    names = ("ENGINE", "START_PORT", "FIXED_PORT", "KEY", "STOPPER", "PEER", "PEER_KEY")
    port = port_window()
    values = dict.fromkeys(names, "http://127.0.0.1:1") | {
        "START_PORT": str(port + 1),
        "FIXED_PORT": str(port + 19),
        "ENGINE": shlex.join(
            [sys.executable, "-I", "-S", "-E", str(SCRIPT), "--control", fakes.address]
        ),
    }
    process = await asyncio.create_subprocess_exec(
        *(*command, "--write", "--config", str(written_to)), env=os.environ | values
    )
    async with asyncio.timeout(DEADLINE_S):
        assert await process.wait() == 0
    assert "sk-first" not in written_to.read_text()
    async with started(tmp_path, fakes, written_to) as swap:
        assert (await swap.asked("gpt-4o-mini", "filtered"))["model"] == "vendor/Filtered-7B"
        assert (await swap.ask("side-a")).status_code == 200
