"""How an engine starts and ends, as far as the router relies on it."""

import signal
import socket
import sys

import msgspec
import pytest

from llama_router.engines.launch import Readiness
from tests.conformance.conftest import Launch
from tests.conformance.harness import RunningEngine, running

pytestmark = pytest.mark.asyncio

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")


async def test_states_are_loading_with_fractions_and_then_ready(launch: Launch) -> None:
    spec = launch()
    assert spec.readiness is Readiness.PUSHED
    async with running(spec) as engine:
        *loading, ready = await engine.states(until="ready")
    assert loading
    assert {state["state"] for state in loading} == {"loading"}
    fractions = [state["payload"]["value"] for state in loading]
    assert fractions == sorted(fractions)
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)
    assert ready["payload"]["meta"]["n_ctx"] > 0


async def test_health_answers_as_soon_as_readiness_is_said(engine: RunningEngine) -> None:
    answer = await engine.request("GET", engine.spec.health_path)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_while_loading_health_is_503_or_not_there(launch: Launch) -> None:
    async with running(launch()) as engine:
        await engine.states(until="loading")
        answer = await engine.request("GET", "/health")
        # A tiny model may be there already; the fake engine's own tests gate this.
        assert answer.status in (200, 503)
        if answer.status == 503:
            error = answer.json()["error"]
            assert error == {"message": "Loading model", "type": "unavailable_error", "code": 503}


async def test_nothing_but_states_is_on_stdout(engine: RunningEngine) -> None:
    await engine.request("POST", "/v1/chat/completions", {"messages": [], "max_tokens": 1})
    await engine.say_exit()
    engine.close_stdin()
    assert await engine.rest_of_stdout() == b""


async def test_the_exit_line_ends_it_well(engine: RunningEngine) -> None:
    # Not right after the ready line: llama-server's main loop may not run yet, and then it forgets.
    await engine.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    await engine.say_exit()
    # The embedded engine dies by the signal that watches its pipe until it has taken over itself.
    assert await engine.ended() in (0, -signal.SIGTERM)


async def test_the_end_of_stdin_ends_it_right_after_the_ready_line(
    engine: RunningEngine, kind: str
) -> None:
    if kind == "llama_server":
        # Its main loop may not run yet, and then now and then it hangs: what the kill is for.
        await engine.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    await engine.say_exit()
    engine.close_stdin()
    assert await engine.ended() in (0, 1, -signal.SIGTERM)


async def test_the_end_of_stdin_ends_it(engine: RunningEngine) -> None:
    await engine.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    engine.close_stdin()
    assert await engine.ended() in (1, -signal.SIGTERM)


@posix_only
async def test_the_exit_line_with_term_ends_it_when_ready(engine: RunningEngine) -> None:
    # With stdin open, llama-server does not end by TERM alone; with stdin closed at the same moment
    # it now and then hangs in its own exit, which is what the kill is for.
    await engine.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    await engine.say_exit()
    engine.terminate()
    assert await engine.ended() in (0, 1, -signal.SIGTERM)


@posix_only
async def test_term_and_the_end_of_stdin_end_it_while_loading(launch: Launch) -> None:
    async with running(launch(fake_flags=("--gate-load",))) as engine:
        await engine.states(until="loading")
        engine.terminate()
        engine.close_stdin()
        assert await engine.ended() in (0, 1, -signal.SIGTERM)


@posix_only
async def test_without_the_variable_it_serves_quietly_until_term(launch: Launch) -> None:
    spec = launch()
    env = {name: value for name, value in spec.env.items() if name != "LLAMA_SERVER_ROUTER_PORT"}
    async with running(msgspec.structs.replace(spec, env=env)) as engine:
        engine.close_stdin()
        # Not told when it is ready: asked until it is.
        status = 0
        while status != 200:
            try:
                status = (await engine.request("GET", "/health")).status
            except ConnectionError:
                assert engine.process.returncode is None, engine.log.decode()
        engine.terminate()
        assert await engine.ended() in (0, -signal.SIGTERM)
        assert await engine.rest_of_stdout() == b""


async def test_a_taken_port_ends_the_start_with_the_reason(launch: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(launch(port=port)) as engine:
            assert await engine.ended() == 1
            assert b"couldn't bind" in engine.log
            assert b'"ready"' not in await engine.rest_of_stdout()


async def test_a_model_that_cannot_be_loaded_ends_the_start(launch: Launch) -> None:
    spec = launch(model="missing", fake_flags=("--exit-in-load", "1"))
    async with running(spec) as engine:
        assert await engine.ended() == 1
        assert engine.log
        assert b'"ready"' not in await engine.rest_of_stdout()


async def test_it_listens_exactly_where_it_was_told(engine: RunningEngine) -> None:
    answer = await engine.request("GET", "/v1/models")
    assert answer.status == 200
    assert engine.spec.argv[engine.spec.argv.index("--port") + 1] == str(engine.spec.port)
