"""The clients of a run: many kinds, paced, each answer judged."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from llama_router.stress import settings
from llama_router.stress.books import Books
from llama_router.stress.fake_engine.faults import FAULTS
from llama_router.stress.tally import Tally
from llama_router.stress.verdict import (
    ERROR_CODES,
    WrongAnswerError,
    code_of,
    error_code,
    judge,
    judge_faulty,
)
from llama_router.stress.wire import Answer, AnswerEnd, connect, request_bytes

CHATS = "/v1/chat/completions"
_EMBEDDINGS = "/v1/embeddings"
# Answers without an end.
_FOLLOWED = ("/admin/events", "/admin/events?model=alpha", "/logs?follow=1", "/logs/bravo?follow=1")
_TOKENS_MAX = 40
# Some 400 KiB: more than the buffers between a client and its engine hold.
_SLOW_TOKENS = 2500
_SLOW_PACE_S = 0.02
_LEAVES_AFTER_MAX_S = 1.5
# Too much work for a run that shares its machine.
_SKIPPED_FAULTS = frozenset({"huge-body", "endless"})
_OK = 200
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_BATCH_CHANCE = 0.2
_KEEP_ALIVE_CHANCE = 0.15
_KEEP_ALIVES = (0, 1, "500ms", "2s", "1h", -1)
_GOOD_ORDER_CODES = ERROR_CODES | {"model_not_loaded"}
_BROKEN_CODES = frozenset({"model_load_failed", "model_backing_off", "model_failed"})

# Of a hundred requests, how many are of which kind.
_KINDS = {
    "chat": 26,
    "stream": 22,
    "embedding": 8,
    "two": 6,
    "slow": 4,
    "leaver": 12,
    "faulty": 11,
    "order": 4,
    "plan": 4,
    "listing": 4,
    "status": 2,
    "unknown": 2,
    "broken": 2,
    "intruder": 1,
    "watcher": 2,
    "half": 1,
}


def _key_headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


_KEY_HEADERS: Mapping[str, str] = MappingProxyType(_key_headers(settings.KEYS[0].key))


class Clients:
    """Sends requests to the router at ``port`` and keeps the tally.

    ``books`` say whether an error has its cause in a fault; without them every one has.
    """

    def __init__(self, port: int, seed: int, tally: Tally, books: Books | None = None) -> None:
        self._port = port
        self._books = books
        self._dice = random.Random(f"{seed}/clients")  # noqa: S311 - no secret
        self._tally = tally
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults = sorted(set(FAULTS) - _SKIPPED_FAULTS)
        self._deeds: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "chat": self._chat,
            "stream": self._stream,
            "embedding": self._embedding,
            "two": self._two,
            "slow": self._slow,
            "leaver": self._leaver,
            "faulty": self._faulty,
            "order": self._order,
            "plan": self._plan,
            "listing": self._listing,
            "status": self._status,
            "unknown": self._unknown,
            "broken": self._broken,
            "intruder": self._intruder,
            "watcher": self._watcher,
            "half": self._half,
        }

    async def run(self, duration_s: float) -> None:
        """Send requests for so long; some may still be under way then."""
        ends_s = time.monotonic() + duration_s
        number = 0
        while time.monotonic() < ends_s:
            await asyncio.sleep(self._dice.expovariate(settings.RATE_PER_S))
            if len(self._tasks) >= settings.CLIENTS_MAX_COUNT:
                continue
            number += 1
            kind = self._dice.choices([*_KINDS], weights=[*_KINDS.values()])[0]
            # Dice of its own: its throws must not depend on when others throw.
            dice = random.Random(self._dice.random())  # noqa: S311 - no secret
            task = asyncio.create_task(self._one(kind, dice), name=f"client {number} {kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the requests under way; each has its own deadline."""
        await asyncio.gather(*self._tasks)

    async def ask_well(self, model: str) -> str:
        """Load a model and ask it, expecting no fault; return what went wrong, "" if nothing."""
        try:
            async with asyncio.timeout(settings.WAIT_MAX_S):
                loaded = await self._exchange("POST", "/admin/load", {"model": model})
                if loaded.status != _OK:
                    return f"load: {loaded.status} {loaded.body[:200]!r}"
                answer = await self._exchange("POST", CHATS, _chat_body(model, 3))
            outcome = judge("chat", model, 3, answer)
        except TimeoutError:
            return f"no answer within {settings.WAIT_MAX_S:g} s"
        except (OSError, WrongAnswerError) as error:
            return str(error)
        return "" if outcome == "ok chat" else outcome

    async def unload(self, model: str) -> str:
        """Order a model's end; return why there is no answer, "" if there is one, good or not."""
        try:
            async with asyncio.timeout(settings.WAIT_MAX_S):
                answer = await self._exchange("POST", "/admin/unload", {"model": model})
        except TimeoutError:
            return f"no answer within {settings.WAIT_MAX_S:g} s"
        except OSError as error:
            return str(error)
        return "the connection was closed" if answer.end is AnswerEnd.NONE else ""

    async def _one(self, kind: str, dice: random.Random) -> None:
        try:
            async with asyncio.timeout(settings.WAIT_MAX_S):
                await self._deeds[kind](dice)
        except TimeoutError:
            self._count("no answer", f"{_task_name()}: nothing for {settings.WAIT_MAX_S:g} s")
        except OSError as error:
            self._count("refused", f"{_task_name()}: {error}")
        except Exception as error:  # noqa: BLE001  # what could not be judged must not pass
            self._count("fault", f"{_task_name()}: {error!r}")

    async def _exchange(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        pace_s: float = 0.0,
        headers: Mapping[str, str] = _KEY_HEADERS,
    ) -> Answer:
        client = await connect(self._port, pace_s=pace_s)
        try:
            return await client.request(method, path, body, headers)
        finally:
            await client.close()

    def _count(self, outcome: str, violation: str = "") -> None:
        self._tally.outcomes[outcome] += 1
        if violation:
            self._tally.violate(violation)

    def _judge(self, kind: str, model: str, count: int, answer: Answer, since_s: float) -> None:
        self._tally.waits_s.append(answer.wait_s)
        try:
            outcome = judge(kind, model, count, answer)
        except WrongAnswerError as error:
            self._count("wrong", f"{kind} of {model}: {error}")
            return
        code = code_of(outcome)
        # A slow reader may meet the end of a drain.
        is_excused = (
            not code
            or self._books is None
            or (code == "cut" and "slow" in _task_name())
            or self._books.excuses(code, model, since_s)
        )
        reason = f"{kind} of {model}, for which no fault is to blame: {outcome}"
        self._count(outcome, "" if is_excused else f"{reason} {answer.body[-300:]!r}")

    async def _ask(
        self,
        dice: random.Random,
        kind: str,
        body: dict[str, object],
        *,
        path: str = CHATS,
        pace_s: float = 0.0,
    ) -> None:
        """Ask as any client might, and judge the answer."""
        since_s = time.monotonic()
        if dice.random() < _KEEP_ALIVE_CHANCE:
            body = body | {"keep_alive": dice.choice(_KEEP_ALIVES)}
        answer = await self._exchange("POST", path, body, pace_s=pace_s, headers=_headers(dice))
        count = body.get("max_tokens", 0)
        self._judge(kind, str(body["model"]), int(str(count)), answer, since_s)

    # --- one for each kind

    async def _chat(self, dice: random.Random) -> None:
        await self._ask(dice, "chat", _chat_body(_model(dice), dice.randint(1, _TOKENS_MAX)))

    async def _stream(self, dice: random.Random) -> None:
        body = _chat_body(_model(dice), dice.randint(1, _TOKENS_MAX)) | {"stream": True}
        await self._ask(dice, "stream", body)

    async def _slow(self, dice: random.Random) -> None:
        body = _chat_body(_model(dice), _SLOW_TOKENS) | {"stream": True}
        await self._ask(dice, "stream", body, pace_s=_SLOW_PACE_S)

    async def _embedding(self, dice: random.Random) -> None:
        body: dict[str, object] = {"model": _model(dice), "input": "x"}
        await self._ask(dice, "embedding", body, path=_EMBEDDINGS)

    async def _two(self, dice: random.Random) -> None:
        client = await connect(self._port)
        try:
            for _ in range(2):
                model, since_s = _model(dice), time.monotonic()
                body = _chat_body(model, 2)
                answer = await client.request("POST", CHATS, body, _headers(dice))
                self._judge("chat", model, 2, answer, since_s)
                if answer.end is not AnswerEnd.WHOLE or "close" in answer.headers.get(
                    "connection", ""
                ):
                    return
        finally:
            await client.close()

    async def _leaver(self, dice: random.Random) -> None:
        body = _chat_body(_model(dice), _SLOW_TOKENS) | {"stream": dice.random() < 0.5}  # noqa: PLR2004 - half
        client = await connect(self._port)
        await client.send_part(request_bytes("POST", CHATS, body, _headers(dice)))
        await asyncio.sleep(dice.uniform(0.0, _LEAVES_AFTER_MAX_S))
        if dice.random() < 0.5:  # noqa: PLR2004 - half of them
            client.abort()
        await client.close()
        self._count("left")

    async def _watcher(self, dice: random.Random) -> None:
        client = await connect(self._port)
        path = dice.choice(_FOLLOWED)
        await client.send_part(request_bytes("GET", path, None, _headers(dice)))
        await asyncio.sleep(dice.uniform(0.0, _LEAVES_AFTER_MAX_S))
        await client.close()
        self._count("left a feed")

    async def _half(self, dice: random.Random) -> None:
        whole = request_bytes("POST", CHATS, _chat_body(_model(dice), 1), _headers(dice))
        client = await connect(self._port)
        await client.send_part(whole[: dice.randrange(1, len(whole))])
        await client.close()
        self._count("left in the request")

    async def _faulty(self, dice: random.Random) -> None:
        model, fault = _model(dice), dice.choice(self._faults)
        _name_task(f"{_task_name()} {fault}")
        body = _chat_body(model, 3) | {"fake_fault": fault, "stream": dice.random() < 0.5}  # noqa: PLR2004 - half
        blamed = contextlib.nullcontext() if self._books is None else self._books.fault(model)
        with blamed:
            answer = await self._exchange("POST", CHATS, body, headers=_headers(dice))
        self._tally.waits_s.append(answer.wait_s)
        try:
            self._count(judge_faulty(model, answer))
        except WrongAnswerError as error:
            self._count("wrong", f"{fault} of {model}: {error}")

    async def _order(self, dice: random.Random) -> None:
        what = dice.choice(("load", "load", "unload"))
        answer = await self._exchange("POST", f"/admin/{what}", {"model": _model(dice)})
        try:
            name = "ok" if answer.status == _OK else error_code(answer, _GOOD_ORDER_CODES)
            self._count(f"{what} order {name}")
        except WrongAnswerError as error:
            self._count("wrong", f"{what} order: {error}")

    async def _plan(self, dice: random.Random) -> None:
        answer = await self._at_once("plan", "POST", "/admin/plan", {"model": _model(dice)})
        if answer is not None and not isinstance(_json(answer), dict):
            self._count("wrong", f"a plan is no object: {answer.body[:200]!r}")

    async def _listing(self, _dice: random.Random) -> None:
        await self._at_once("listing", "GET", "/v1/models")

    async def _status(self, _dice: random.Random) -> None:
        await self._at_once("status", "GET", "/admin/status")

    async def _unknown(self, _dice: random.Random) -> None:
        body = _chat_body("zulu", 1)
        await self._at_once("unknown model", "POST", CHATS, body, status=_NOT_FOUND)

    async def _broken(self, dice: random.Random) -> None:
        body = _chat_body(settings.BROKEN_MODEL, 1)
        answer = await self._exchange("POST", CHATS, body, headers=_headers(dice))
        try:
            self._count(f"broken model: {error_code(answer, _BROKEN_CODES)}")
        except WrongAnswerError as error:
            self._count("wrong", f"broken model: {error}")

    async def _intruder(self, dice: random.Random) -> None:
        headers = dice.choice(({}, {"Authorization": "Bearer wrong"}))
        body = _chat_body(_model(dice), 1)
        await self._at_once("intruder", "POST", CHATS, body, status=_UNAUTHORIZED, headers=headers)

    async def _at_once(
        self,
        name: str,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int = _OK,
        headers: Mapping[str, str] = _KEY_HEADERS,
    ) -> Answer | None:
        """Ask what never waits for an engine; return the answer if it is as it should be."""
        since_s = time.monotonic()
        answer = await self._exchange(method, path, body, headers=headers)
        took_s = time.monotonic() - since_s
        if answer.status != status or took_s > settings.CONTROL_WAIT_MAX_S:
            said = f"status {answer.status} after {took_s:.1f} s: {answer.body[:200]!r}"
            self._count("wrong", f"{name}: {said}")
            return None
        self._count(f"ok {name}")
        return answer


def _model(dice: random.Random) -> str:
    model = dice.choice(settings.MODELS).name
    _name_task(f"{_task_name()} {model}")
    return model


def _task_name() -> str:
    task = asyncio.current_task()
    return task.get_name() if task is not None else ""


def _name_task(name: str) -> None:
    """Let the current task's name say what it does, for the text of a violation."""
    task = asyncio.current_task()
    if task is not None:
        task.set_name(name)


def _headers(dice: random.Random) -> dict[str, str]:
    """Return a key, and sometimes the class, of a request."""
    headers = _key_headers(dice.choice(settings.KEYS).key)
    if dice.random() < _BATCH_CHANCE:
        headers["X-Router-Class"] = "batch"
    return headers


def _json(answer: Answer) -> object:
    try:
        value: object = json.loads(answer.body)
    except ValueError:
        return None
    return value


def _chat_body(model: str, count: int) -> dict[str, object]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": messages, "max_tokens": count}
