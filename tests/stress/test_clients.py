"""The clients against a server that plays the router."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from llama_router.stress import settings
from llama_router.stress.books import Books
from llama_router.stress.clients import CHATS, Clients
from llama_router.stress.tally import Tally
from llama_router.stress.verdict import words

pytestmark = pytest.mark.asyncio
DEADLINE_S = 90.0
KEY = f"Bearer {settings.KEYS[0].key}"


def answer_of(
    method: str, path: str, body: dict[str, object], speaker: str, key: str
) -> tuple[int, object]:
    model = str(body.get("model", ""))
    if key not in [f"Bearer {each.key}" for each in settings.KEYS]:
        return 401, {}
    if method == "GET" or path.startswith("/admin"):
        return 200, {}
    if model == settings.BROKEN_MODEL:
        return 503, {"error": {"code": "model_load_failed"}}
    if model == "zulu":
        return 404, {"error": {"code": "model_not_found"}}
    if "max_tokens" not in body or body.get("stream") or "fake_fault" in body:
        return 503, {"error": {"code": "engine_crashed"}}
    text = words(speaker or model, int(str(body["max_tokens"])))
    return 200, {"model": model, "choices": [{"message": {"content": text}}]}


@asynccontextmanager
async def router(speaker: str = "") -> AsyncIterator[int]:
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = head.lower().partition("content-length: ")[2].partition("\r")[0]
            body = json.loads(await reader.readexactly(int(length)) if length else b"{}")
            method, path, _ = head.split(" ", 2)
            key = head.partition("Authorization: ")[2].partition("\r")[0]
            status, value = answer_of(method, path, body, speaker, key)
            data = json.dumps(value).encode()
            writer.write(
                f"HTTP/1.1 {status} x\r\nConnection: close\r\n"
                f"Content-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*serving)


async def run(clients: Clients, tally: Tally, expected: Collection[str] = ()) -> None:
    """Send requests until there are some, and outcomes of all ``expected`` kinds."""
    while not tally.request_count or not set(expected) <= set(tally.outcomes):
        await clients.run(0.1)
        await clients.finish()


@pytest.mark.slow
async def test_every_kind_of_client_is_content_with_a_good_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 200.0)
    monkeypatch.setattr("llama_router.stress.settings.CLIENTS_MAX_COUNT", 1000)
    expected = {"ok chat", "ok listing", "ok plan", "ok unknown model", "ok intruder", "left"}
    tally = Tally()
    async with asyncio.timeout(DEADLINE_S), router() as port:
        clients = Clients(port, 1, tally)
        await run(clients, tally, expected)
        assert await clients.ask_well("alpha") == ""
        await clients.unload("alpha")
    assert tally.violations == []


async def test_another_models_words_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.stress.clients._KINDS", {"chat": 1})
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 100.0)
    tally = Tally()
    async with asyncio.timeout(DEADLINE_S), router(speaker="thief") as port:
        clients = Clients(port, 1, tally)
        await run(clients, tally)
        assert "words" in await clients.ask_well("alpha")
    assert set(tally.outcomes) == {"wrong"}
    assert "words" in tally.violations[0]


async def test_a_router_that_does_not_answer_is_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama_router.stress.clients._KINDS", {"faulty": 1})
    monkeypatch.setattr("llama_router.stress.settings.WAIT_MAX_S", 0.05)
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 100.0)
    tally = Tally()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with asyncio.timeout(DEADLINE_S), server:
        clients = Clients(server.sockets[0].getsockname()[1], 1, tally)
        await run(clients, tally)
    assert set(tally.outcomes) == {"no answer"}
    assert "faulty" in tally.violations[0]


async def test_a_second_request_that_is_dropped_is_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama_router.stress.clients._KINDS", {"two": 1})
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 100.0)
    tally = Tally()

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = head.lower().partition("content-length: ")[2].partition("\r")[0]
            model = json.loads(await reader.readexactly(int(length)))["model"]
            _, value = answer_of("POST", CHATS, {"model": model, "max_tokens": 2}, "", KEY)
            data = json.dumps(value).encode()
            writer.write(b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    async with asyncio.timeout(DEADLINE_S), server:
        clients = Clients(server.sockets[0].getsockname()[1], 1, tally)
        await run(clients, tally)
    assert set(tally.outcomes) == {"ok chat", "wrong"}
    assert tally.violation_count == tally.outcomes["wrong"] == tally.outcomes["ok chat"]
    assert "without an answer" in tally.violations[0]


async def test_a_fault_of_the_clients_own_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.stress.clients._KINDS", {"chat": 1})
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 100.0)

    def fail(*_: object) -> str:
        raise KeyError("choices")

    monkeypatch.setattr("llama_router.stress.clients.judge", fail)
    tally = Tally()
    async with asyncio.timeout(DEADLINE_S), router() as port:
        clients = Clients(port, 1, tally)
        await run(clients, tally)
    assert set(tally.outcomes) == {"fault"}
    assert tally.violation_count == tally.request_count
    assert "KeyError('choices')" in tally.violations[0]


@pytest.mark.parametrize("has_fault", [True, False])
async def test_an_error_without_a_fault_is_a_violation(
    monkeypatch: pytest.MonkeyPatch, *, has_fault: bool
) -> None:
    monkeypatch.setattr("llama_router.stress.clients._KINDS", {"stream": 1})
    monkeypatch.setattr("llama_router.stress.settings.RATE_PER_S", 100.0)
    tally = Tally()
    books = Books(settings.setup(0).rules(), tally.violate)
    async with asyncio.timeout(DEADLINE_S), router() as port:
        clients = Clients(port, 1, tally, books)
        with contextlib.ExitStack() as stack:
            if has_fault:
                for model in settings.MODELS:
                    stack.enter_context(books.fault(model.name))
            await run(clients, tally)
    assert set(tally.outcomes) == {"error engine_crashed"}
    assert bool(tally.violations) is not has_fault
