"""The fake engine's gates and misbehaviour; what it shares with real ones is in the other files."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llama_router.engines.kinds import CommandTemplate, ModelFacts, build_launch
from tests.conformance.harness import DEADLINE_S, RunningEngine, running
from tests.support.fake_engine_control import FakeEngine, FakeEngines, foreign_server
from tests.support.fake_engine_faults import FAULTS
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="children and signals are POSIX"),
]

Pair = tuple[RunningEngine, FakeEngine]
Start = Callable[..., AbstractAsyncContextManager[Pair]]

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}
CHATS = "/v1/chat/completions"


@pytest_asyncio.fixture
async def fakes() -> AsyncIterator[FakeEngines]:
    async with FakeEngines() as fakes:
        yield fakes


@pytest.fixture
def start(fakes: FakeEngines) -> Start:
    @contextlib.asynccontextmanager
    async def start(*flags: str, port: int = 0) -> AsyncIterator[Pair]:
        spec = build_launch(
            CommandTemplate(command=tuple(fakes.command(*flags))),
            ModelFacts(id="alpha", path=Path("/m/alpha.gguf")),
            generation=1,
            host="127.0.0.1",
            port=port or free_port(),
            base_env=os.environ,
            found_llama_server=None,
        )
        async with running(spec) as engine:
            yield engine, await fakes.started("alpha")

    return start


async def raw_answer(engine: RunningEngine, fault: str) -> bytes:
    """Give every byte that comes back for a request, up to the end of the connection."""
    reader, writer = await asyncio.open_connection(engine.spec.host, engine.spec.port)
    body = b'{"messages":[],"fake_fault":"%b"}' % fault.encode()
    head = f"POST {CHATS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    answer = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while chunk := await reader.read(2**20):
                answer += chunk
    except ConnectionResetError:
        answer += b"<reset>"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer


async def test_a_gated_load_is_503_until_the_test_says_ready(start: Start) -> None:
    async with start("--gate-load", "--push") as (engine, fake):
        await fake.event("listening")
        for path in ("/health", "/v1/models"):
            answer = await engine.request("GET", path)
            assert answer.status == 503
            assert answer.json()["error"]["message"] == "Loading model"
        await fake.progress(0.43)
        await fake.ready()
        states = await engine.states(until="ready")
        assert [state["payload"].get("value") for state in states] == [0.0, 0.43, 1.0, None]
        assert (await engine.request("GET", "/health")).status == 200


async def test_the_old_protocol_says_ready_and_nothing_else(start: Start) -> None:
    async with start("--old-push") as (engine, fake):
        await fake.event("ready")
        await engine.say_exit()
        assert await engine.rest_of_stdout() == b"cmd_child_to_router:ready\n"


async def test_a_gated_stream_comes_token_by_token(start: Start) -> None:
    async with start("--gate-stream") as (engine, fake):
        await fake.event("ready")
        async with engine.client() as client:
            await client.send("POST", CHATS, STREAM)
            await client.read_head()
            assert b'"role"' in await client.read_chunk()
            await fake.next_token("tick")
            assert b'"tick"' in await client.read_chunk()
            state = await fake.state()
            assert state["active_streams"] == [1]
            await fake.next_token(count=2)
            assert b'" 1"' in await client.read_chunk()
            assert b'" 2"' in await client.read_chunk()
            await fake.finish()
            assert b'"stop"' in await client.read_chunk()
            assert await client.read_chunk() == b"data: [DONE]\n\n"
        await fake.event("stream_ended", how="done")


async def test_a_client_that_leaves_a_gated_stream_is_noticed(start: Start) -> None:
    async with start("--gate-stream") as (engine, fake):
        await fake.event("ready")
        async with engine.client() as client:
            await client.send("POST", CHATS, STREAM)
            await client.read_head()
        await fake.event("stream_ended", how="client_left")
        assert (await fake.state())["active_streams"] == []


async def test_what_it_says_carries_its_name_and_is_counted(start: Start) -> None:
    async with start("--tokens", "3") as (engine, fake):
        await fake.event("ready")
        answer = (await engine.request("POST", CHATS, CHAT)).json()
        assert answer["choices"][0]["message"]["content"] == " alpha 1 2"
        assert answer["model"] == "alpha"
        state = (await engine.request("GET", "/fake/state")).json()
        assert (state["requests"], state["inference_requests"]) == (2, 1)
        assert (await fake.event("request"))["target"] == CHATS


async def test_a_form_is_echoed(start: Start) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nalpha\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n'
        b"--b--\r\n"
    )
    async with start() as (engine, fake):
        await fake.event("ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.spec.port)
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Type: multipart/form-data; "
        writer.write(f"{head}boundary=b\r\nContent-Length: {len(form)}\r\n\r\n".encode() + form)
        async with asyncio.timeout(DEADLINE_S):
            await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readuntil(b"}}}")
        writer.close()
        await writer.wait_closed()
    assert b'"model":"alpha"' in answer
    assert b'"filename":"a.wav","bytes":2' in answer


@pytest.mark.parametrize(
    ("end", "status"),
    [("crash", -signal.SIGSEGV), ("kill", -signal.SIGKILL), ("exit", 3)],
)
async def test_it_ends_as_told_while_loading(start: Start, end: str, status: int) -> None:
    async with start("--gate-load") as (engine, fake):
        await (fake.exit(3) if end == "exit" else getattr(fake, end)())
        assert await engine.ended() == status


@pytest.mark.parametrize(
    ("flags", "status", "reason"),
    [(["--exit-in-load", "5"], 5, b"told to exit"), (["--out-of-memory"], 1, b"out of memory")],
)
async def test_a_load_that_fails_says_why(
    start: Start, flags: list[str], status: int, reason: bytes
) -> None:
    async with start(*flags) as (engine, _):
        assert await engine.ended() == status
        assert reason in engine.log


async def test_it_runs_out_of_memory_while_loading_or_answering(start: Start) -> None:
    limit = ("--memory-limit-bytes", str(64 * 1024 * 1024))
    async with start(*limit, "--fill-memory") as (engine, _):
        assert await engine.ended() == 1
        assert b"failed to allocate" in engine.log
    async with start(*limit) as (engine, fake):
        await fake.event("ready")
        assert b'" one"' in await raw_answer(engine, "out-of-memory")
        assert await engine.ended() == 1
        assert b"failed to allocate" in engine.log


async def test_it_asks_which_switches_hold_for_this_start(start: Start) -> None:
    async with start("--ask") as (engine, fake):
        await fake.switches("--tokens", "2", "--gate-load")
        await fake.event("listening")
        await fake.ready()
        answer = (await engine.request("POST", CHATS, CHAT)).json()
        assert answer["choices"][0]["message"]["content"] == " alpha 1"


async def test_term_can_be_ignored(start: Start) -> None:
    async with start("--ignore-term") as (engine, fake):
        await fake.event("ready")
        engine.terminate()
        await fake.event("term")
        assert (await engine.request("GET", "/health")).status == 200


async def test_the_exit_line_can_be_ignored(start: Start) -> None:
    async with start("--push", "--ignore-exit-line") as (engine, fake):
        await fake.event("ready")
        await engine.say_exit()
        await fake.event("exit_line")
        engine.close_stdin()
        await fake.event("stdin_end")
        assert (await engine.request("GET", "/health")).status == 200


async def test_children_and_strays_outlive_it_until_the_test_ends(
    start: Start, fakes: FakeEngines
) -> None:
    async with start("--child", "--stray") as (_, fake):
        await fake.event("ready")
        child = await fakes.started("alpha/child")
        stray = await fakes.started("alpha/stray")
        assert os.getsid(child.pid) == os.getsid(fake.pid) != os.getsid(stray.pid)
        await fake.kill()
        # They hold the engine's stdout, as such children do.
        for orphan in (child, stray):
            assert await orphan.state()
            os.kill(orphan.pid, signal.SIGKILL)
            await orphan.gone()


async def test_its_output_is_hostile(start: Start) -> None:
    flags = ("--dirty-output", "--long-line-bytes", "1000000", "--flood-bytes", "500000")
    async with start(*flags) as (engine, fake):
        await fake.event("ready")
        assert engine.process.stdout is not None
        output = b""
        async with asyncio.timeout(DEADLINE_S):
            while output.count(b"floods") < 500_000 // 73:
                output += await engine.process.stdout.read(2**20)
            await fake.say(b"last words\n")
            while b"last words\n" not in output:
                output += await engine.process.stdout.read(2**20)
    assert b"\x1b[31m" in output
    assert b"\xff\xfe" in output
    assert max(len(line) for line in output.split(b"\n")) >= 1_000_000


async def test_a_port_can_be_stolen_before_it_binds(start: Start, fakes: FakeEngines) -> None:
    async with start("--gate-bind") as (engine, fake):
        await fake.event("gated_bind")
        async with foreign_server(fakes, engine.spec.port) as thief:
            assert (await engine.request("GET", "/health")).status == 200
            await fake.bind()
            assert await engine.ended() == 1
            assert (await thief.state())["inference_requests"] == 0


async def test_idle_connections_can_be_closed_unsaid(start: Start) -> None:
    async with start("--close-idle") as (engine, fake):
        await fake.event("ready")
        async with engine.client() as client:
            answer = await client.request("POST", CHATS, CHAT)
            assert "connection" not in answer.headers
            assert await client.is_closed()


async def test_faults_are_armed_for_a_number_of_requests(start: Start) -> None:
    async with start("--fault", "status-500:1") as (engine, fake):
        await fake.event("ready")
        await fake.fault("status-429", times=2)
        statuses = [(await engine.request("POST", CHATS, CHAT)).status for _ in range(4)]
        assert statuses == [500, 429, 429, 200]


_STARTS = {
    "close-first": b"",
    "reset-first": b"<reset>",
    "garbage": b"\x00\x01\x02",
    "http2-preface": b"PRI * HTTP/2.0",
    "bad-status": b"HTTP/1.1 abc",
    "status-99": b"HTTP/1.1 99",
    "until-close": b"HTTP/1.0 200",
    "continue-first": b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\nHTTP/1.1 200",
    "early-hints": b"HTTP/1.1 103 Early Hints\r\nX-Interim: 1\r\n\r\nHTTP/1.1 200",
    "switching": b"HTTP/1.1 101",
    "status-204": b"HTTP/1.1 204",
    "status-304": b"HTTP/1.1 304",
    "status-400": b"HTTP/1.1 400",
    "status-429": b"HTTP/1.1 429",
    "status-500": b"HTTP/1.1 500",
    "status-503": b"HTTP/1.1 503",
    "plain-500": b"HTTP/1.1 500",
    "html-502": b"HTTP/1.1 502",
    "redirect": b"HTTP/1.1 302",
}
_HOLDS = {
    "double-length": b"Content-Length: 41\r\nContent-Length: 4",
    "length-and-chunked": b"Content-Length: 41\r\nTransfer-Encoding: chunked",
    "negative-length": b"Content-Length: -1",
    "header-cr": b"a\rSet-Cookie",
    "header-lf": b"a\nSet-Cookie",
    "header-nul": b"a\x00b",
    "header-fold": b"a\r\n b",
    "huge-head": b"x" * 1_000_000,
    "many-headers": b"X-9999: 1",
    "late-answer": b"{}HTTP/1.1 200 OK",
    "odd-chunks": b"\r\n3\r\n",
    "chunk-extension": b";note=1",
    "bad-chunk": b"zz\r\n",
    "error-in-stream": b"told to fail",
    "huge-body": b"x" * 60 * 1024 * 1024,
}
_CUTS = {
    "half-head": b"Content-Le",
    "short-body": b'"choices":[]}',
    "long-body": b'"choices":[]}',
    "no-last-chunk": b"\n\n\r\n",
    "cut-half-event": b"\r\n",
    "cut-mid-chunk": b'"created":170000',
    "reset-mid-stream": b"<reset>",
}
_CRASHES = {"crash-event", "crash-half-event", "crash-mid-chunk"}
_EXITS = {"out-of-memory"}
_ENDLESS = {"hang", "hang-in-head", "hang-in-body", "endless"}


async def test_every_fault_is_tested() -> None:
    assert set(FAULTS) == {*_STARTS, *_HOLDS, *_CUTS, *_CRASHES, *_EXITS, *_ENDLESS}


async def test_faults_on_the_wire_are_what_they_say(start: Start) -> None:
    async with start() as (engine, fake):
        await fake.event("ready")
        for fault, beginning in _STARTS.items():
            assert (await raw_answer(engine, fault)).startswith(beginning), fault
        for fault, held in _HOLDS.items():
            assert held in await raw_answer(engine, fault), fault
        for fault, ending in _CUTS.items():
            answer = await raw_answer(engine, fault)
            assert ending in answer[-80:], fault
            assert not answer.endswith(b"0\r\n\r\n"), fault


@pytest.mark.parametrize("fault", sorted(_CRASHES))
async def test_it_crashes_in_the_middle_of_a_stream(start: Start, fault: str) -> None:
    async with start() as (engine, fake):
        await fake.event("ready")
        answer = await raw_answer(engine, fault)
        assert b'" two"' in answer
        assert b"[DONE]" not in answer
        assert await engine.ended() == -signal.SIGKILL


@pytest.mark.parametrize(("where", "end"), [("event", b"\n\n\r\n"), ("mid_chunk", b"created")])
async def test_a_gated_stream_is_cut_where_the_test_says(
    start: Start, where: str, end: bytes
) -> None:
    async with start("--gate-stream") as (engine, fake):
        await fake.event("ready")
        async with engine.client() as client:
            await client.send("POST", CHATS, STREAM)
            await client.read_head()
            await fake.event("stream_started")
            await fake.next_token("one")
            await fake.cut(where, "kill")
            rest = await client._reader.read()
        assert b'"one"' in rest
        assert end in rest[-80:]
        assert await engine.ended() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("fault", "said"),
    [("hang", 0), ("hang-in-head", 10), ("hang-in-body", 100), ("endless", 1_000_000)],
)
async def test_hanging_and_endless_answers_end_with_the_client(
    start: Start, fault: str, said: int
) -> None:
    async with start() as (engine, fake):
        await fake.event("ready")
        async with engine.client() as client:
            await client.send("POST", CHATS, {**CHAT, "fake_fault": fault})
            await fake.event("request")
            read = 0
            while read < said:
                read += len(await client._reader.read(65536))
            assert read >= said
        # It serves on.
        assert (await engine.request("POST", CHATS, CHAT)).status == 200
