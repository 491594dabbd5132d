"""What becomes of engines, and of those who wait for them, when engines misbehave."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, deltas, error_of, events
from tests.support.fake_engine_control import FakeEngines, foreign_server
from tests.support.router_process import RouterProcess, gone

pytestmark = pytest.mark.asyncio

# Long enough to be met by who asks during it, on any machine.
BACKOFF_S = 4
LONGER_BACKOFF = f"import llama_router.core.crashes as it; it.FIRST_BACKOFF_S = {BACKOFF_S}"
LEAVERS_COUNT = 5


def mapped_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def ask(router: RouterProcess, model: str, **rest: object) -> "asyncio.Task[httpx2.Response]":
    work = router.client.post(CHAT, json=body(model, **rest))
    return asyncio.create_task(work, name=f"ask {model}")


async def collect(pieces: AsyncIterator[str], into: list[str]) -> None:
    async for piece in pieces:
        into.append(piece)  # noqa: PERF401 - what came before it broke off is wanted too


async def test_an_engine_that_ignores_term_is_killed_after_the_grace_and_the_swap_goes_on(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--ignore-term", "--child", router={"stop_grace_s": 0.2})
    assert (await ask(router, "alpha")).status_code == 200
    alpha, child = await fakes.started("alpha"), await fakes.started("alpha/child")
    second = await ask(router, "beta")
    assert second.json()["choices"][0]["message"]["content"].startswith(" beta")
    await alpha.event("term")
    # Both were gone before the next engine was started.
    assert await gone({alpha.pid, child.pid}, timeout_s=0.0) == set()


async def test_a_failed_load_fails_every_waiter_at_once_and_keeps_the_log(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load")
    waiting = [ask(router, "alpha") for _ in range(3)]
    alpha = await fakes.started("alpha")
    await alpha.say(b"error: tensor 'blk.0' has the wrong shape\n", stderr=True)
    await router.busy_with(3)
    await alpha.exit(3)
    for answer in await asyncio.gather(*waiting):
        error = error_of(answer)
        assert answer.status_code == 503
        assert error["code"] == "model_load_failed"
        assert "exited with status 3" in error["message"]
        assert "wrong shape" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
    log = await router.client.get("/logs/alpha")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.text == "error: tensor 'blk.0' has the wrong shape\n"
    assert len(fakes.engines) == 1


async def test_a_program_that_cannot_be_started_fails_the_load_with_the_reason_and_a_log(
    start_router: StartRouter,
) -> None:
    broken = {"spawn": {"command": ["/nowhere/engine", "$port"]}}
    router = await start_router(models={"alpha": broken})
    answer = await ask(router, "alpha")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_load_failed")
    assert "No such file or directory" in error_of(answer)["message"]
    assert "No such file or directory" in (await router.client.get("/logs/alpha")).text


async def test_a_model_file_that_has_gone_since_the_start_fails_the_load_with_the_reason(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha",))
    (router.state_dir.parents[1] / "models" / "alpha.gguf").unlink()
    answer = await ask(router, "alpha")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_load_failed")
    assert "alpha.gguf is gone" in error_of(answer)["message"]
    assert "alpha.gguf is gone" in (await router.client.get("/logs/alpha")).text
    assert fakes.engines == []


async def test_after_a_crash_requests_are_put_off_with_retry_after_until_the_back_off_is_over(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", models=("alpha",), prelude=LONGER_BACKOFF)
    loading = ask(router, "alpha")
    await (await fakes.started("alpha")).ready()
    assert (await loading).status_code == 200
    await fakes.engines[0].crash()
    status = await router.becomes("alpha", "backing_off")
    assert status["failed"] is True
    assert "SIGSEGV" in status["error"]
    answer = await ask(router, "alpha")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_backing_off")
    assert 1 <= int(answer.headers["retry-after"]) <= BACKOFF_S
    assert answer.headers["x-should-retry"] == "false"
    await router.becomes("alpha", "unloaded")
    again = ask(router, "alpha")
    await (await fakes.started("alpha")).ready()
    assert (await again).status_code == 200


async def test_five_crashes_give_a_model_up_until_an_operator_loads_it(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(
        "--gate-load",
        models=("alpha",),
        prelude="import llama_router.core.crashes as it; it.FIRST_BACKOFF_S = 0.001",
    )
    for number in range(5):
        asked = ask(router, "alpha")
        await (await fakes.started("alpha")).exit(1)
        assert error_of(await asked)["code"] == "model_load_failed"
        await router.becomes("alpha", "unloaded" if number < 4 else "failed")
    answer = await ask(router, "alpha")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "model_failed")
    assert answer.headers["x-should-retry"] == "false"
    assert 590 < int(answer.headers["retry-after"]) <= 600
    assert len(fakes.engines) == 5
    load = asyncio.create_task(
        router.client.post("/admin/load", json={"model": "alpha"}), name="load"
    )
    await (await fakes.started("alpha")).ready()
    assert (await load).json() == {"success": True, "model": "alpha", "state": "loaded"}
    assert (await ask(router, "alpha")).status_code == 200


async def test_a_foreign_server_on_the_port_is_never_believed(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-bind", models=("alpha",))
    asked = ask(router, "alpha")
    alpha = await fakes.started("alpha")
    port = int(alpha.argv[alpha.argv.index("--port") + 1])
    async with foreign_server(fakes, port) as thief:
        await alpha.gone()
        again = await fakes.started("alpha")
        assert int(again.argv[again.argv.index("--port") + 1]) != port
        await again.bind()
        assert (await asked).json()["choices"][0]["message"]["content"].startswith(" alpha")
        assert (await thief.state())["inference_requests"] == 0


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_frees_the_engines_slot_within_100_ms(
    start_router: StartRouter, fakes: FakeEngines, how: str
) -> None:
    # A reset is noticed by itself; a mere close only by what is written next, so words flow there.
    flags = ("--tokens", "100000", "--token-interval-ms", "5") if how == "close" else ()
    router = await start_router(*(flags or ("--gate-stream",)), models=("alpha",))
    assert (await router.client.post("/admin/load", json={"model": "alpha"})).status_code == 200
    alpha = await fakes.started("alpha")

    async def leave() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        content = b'{"model": "alpha", "stream": true, "messages": []}'
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (CHAT.encode(), len(content)) + content)
        await alpha.event("stream_started")
        await alpha.next_token()
        await reader.readuntil(b" alpha")
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        left_at_s = time.monotonic()
        writer.transport.abort()
        await alpha.event("stream_ended", how="client_left")
        return time.monotonic() - left_at_s

    # A machine may stand still at any moment, but not at each.
    assert min([await leave() for _ in range(LEAVERS_COUNT)]) < 0.1
    await router.busy_with(0)


async def test_a_crash_in_the_middle_of_a_stream_ends_it_visibly_with_an_error_event(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-stream", models=("alpha",), prelude=LONGER_BACKOFF)
    text = ""
    async with router.client.stream("POST", CHAT, json=body("alpha", stream=True)) as answer:
        assert answer.status_code == 200
        alpha = await fakes.started("alpha")
        await alpha.event("stream_started")
        await alpha.next_token()
        pieces = answer.aiter_text()
        while " alpha" not in text:
            text += await anext(pieces)
        await alpha.cut("event")
        rest: list[str] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            await collect(pieces, rest)
        text += "".join(rest)
    assert deltas(text) == [" alpha"]
    assert events(text)[-1]["error"]["code"] == "engine_crashed"
    assert "[DONE]" not in text
    status = await router.becomes("alpha", "backing_off")
    assert "SIGKILL" in status["error"]


async def test_an_engine_that_hangs_on_load_is_a_504_for_its_waiters_and_is_ended(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", router={"ready_timeout_s": 0.5})
    answers = await asyncio.gather(ask(router, "alpha"), ask(router, "alpha"))
    assert [answer.status_code for answer in answers] == [504, 504]
    assert error_of(answers[0])["code"] == "load_timeout"
    assert answers[0].headers["x-should-retry"] == "false"
    await router.says("alpha: stopping -> ")
    # On a slow machine it was ended before it could say hello.
    for engine in fakes.engines:
        await engine.gone()


async def test_an_engine_that_hangs_before_its_first_byte_is_a_504_after_the_time_for_that(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha",), router={"first_byte_timeout_s": 0.5})
    answer = await ask(router, "alpha", fake_fault="hang")
    assert (answer.status_code, error_of(answer)["code"]) == (504, "engine_timeout")


async def test_children_and_strays_of_an_engine_end_with_it(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--child", "--stray", models=("alpha",))
    assert (await ask(router, "alpha")).status_code == 200
    child, stray = await fakes.started("alpha/child"), await fakes.started("alpha/stray")
    done = await router.client.post("/admin/unload", json={"model": "alpha"})
    assert done.json() == {"success": True, "model": "alpha", "state": "unloaded"}
    # One on its way out has given its memory back a moment before it is gone.
    left = await gone({child.pid, stray.pid}, timeout_s=0.0)
    assert sum(map(mapped_pages, left)) == 0
    assert await gone(left) == set()
