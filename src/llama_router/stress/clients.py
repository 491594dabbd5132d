"""The clients of a run: many kinds, paced, each answer judged."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from llama_router.stress import settings
from llama_router.stress.fake_engine.faults import FAULTS
from llama_router.stress.tally import Tally
from llama_router.stress.verdict import (
    ERROR_CODES,
    WrongAnswerError,
    error_code,
    judge,
    judge_faulty,
)
from llama_router.stress.wire import Answer, AnswerEnd, connect, request_bytes

CHATS = "/v1/chat/completions"
_EMBEDDINGS = "/v1/embeddings"
_TOKENS_MAX = 40
# Some 400 KiB: more than the buffers between a client and its engine hold.
_SLOW_TOKENS = 2500
_SLOW_PACE_S = 0.02
_LEAVES_AFTER_MAX_S = 1.5
# Too much work for a run that shares its machine.
_SKIPPED_FAULTS = frozenset({"huge-body", "endless"})
_OK = 200
_NOT_FOUND = 404
_GOOD_ORDER_CODES = ERROR_CODES | {"model_not_loaded"}

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
    "listing": 4,
    "unknown": 2,
    "half": 1,
}


class Clients:
    """Sends requests to the router at ``port`` and keeps the tally."""

    def __init__(self, port: int, seed: int, tally: Tally) -> None:
        self._port = port
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
            "listing": self._listing,
            "unknown": self._unknown,
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

    async def unload(self, model: str) -> None:
        """Order a model's end; how it is answered does not matter here."""
        async with asyncio.timeout(settings.WAIT_MAX_S):
            await self._exchange("POST", "/admin/unload", {"model": model})

    async def _one(self, kind: str, dice: random.Random) -> None:
        try:
            async with asyncio.timeout(settings.WAIT_MAX_S):
                await self._deeds[kind](dice)
        except TimeoutError:
            self._count("no answer", f"{_task_name()}: nothing for {settings.WAIT_MAX_S:g} s")
        except OSError as error:
            self._count("refused", f"{_task_name()}: {error}")

    async def _exchange(
        self, method: str, path: str, body: object = None, *, pace_s: float = 0.0
    ) -> Answer:
        client = await connect(self._port, pace_s=pace_s)
        try:
            return await client.request(method, path, body)
        finally:
            await client.close()

    def _count(self, outcome: str, violation: str = "") -> None:
        self._tally.outcomes[outcome] += 1
        if violation:
            self._tally.violate(violation)

    def _judge(self, kind: str, model: str, count: int, answer: Answer) -> None:
        self._tally.waits_s.append(answer.wait_s)
        try:
            self._count(judge(kind, model, count, answer))
        except WrongAnswerError as error:
            self._count("wrong", f"{kind} of {model}: {error}")

    # --- one for each kind

    async def _chat(self, dice: random.Random) -> None:
        model, count = _model(dice), dice.randint(1, _TOKENS_MAX)
        answer = await self._exchange("POST", CHATS, _chat_body(model, count))
        self._judge("chat", model, count, answer)

    async def _stream(self, dice: random.Random) -> None:
        model, count = _model(dice), dice.randint(1, _TOKENS_MAX)
        body = _chat_body(model, count) | {"stream": True}
        self._judge("stream", model, count, await self._exchange("POST", CHATS, body))

    async def _slow(self, dice: random.Random) -> None:
        model = _model(dice)
        body = _chat_body(model, _SLOW_TOKENS) | {"stream": True}
        answer = await self._exchange("POST", CHATS, body, pace_s=_SLOW_PACE_S)
        self._judge("stream", model, _SLOW_TOKENS, answer)

    async def _embedding(self, dice: random.Random) -> None:
        model = _model(dice)
        answer = await self._exchange("POST", _EMBEDDINGS, {"model": model, "input": "x"})
        self._judge("embedding", model, 0, answer)

    async def _two(self, dice: random.Random) -> None:
        client = await connect(self._port)
        try:
            for number in range(2):
                model = _model(dice)
                answer = await client.request("POST", CHATS, _chat_body(model, 2))
                if number == 1 and answer.end is AnswerEnd.NONE:
                    # Idle connections may be closed at any time.
                    self._count("closed between two")
                    return
                self._judge("chat", model, 2, answer)
                if answer.end is not AnswerEnd.WHOLE or "close" in answer.headers.get(
                    "connection", ""
                ):
                    return
        finally:
            await client.close()

    async def _leaver(self, dice: random.Random) -> None:
        body = _chat_body(_model(dice), _SLOW_TOKENS) | {"stream": dice.random() < 0.5}  # noqa: PLR2004 - half
        client = await connect(self._port)
        await client.send_part(request_bytes("POST", CHATS, body))
        await asyncio.sleep(dice.uniform(0.0, _LEAVES_AFTER_MAX_S))
        if dice.random() < 0.5:  # noqa: PLR2004 - half of them
            client.abort()
        await client.close()
        self._count("left")

    async def _half(self, dice: random.Random) -> None:
        whole = request_bytes("POST", CHATS, _chat_body(_model(dice), 1))
        client = await connect(self._port)
        await client.send_part(whole[: dice.randrange(1, len(whole))])
        await client.close()
        self._count("left in the request")

    async def _faulty(self, dice: random.Random) -> None:
        model, fault = _model(dice), dice.choice(self._faults)
        _name_task(f"{_task_name()} {fault}")
        body = _chat_body(model, 3) | {"fake_fault": fault, "stream": dice.random() < 0.5}  # noqa: PLR2004 - half
        answer = await self._exchange("POST", CHATS, body)
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

    async def _listing(self, _dice: random.Random) -> None:
        started_s = time.monotonic()
        answer = await self._exchange("GET", "/v1/models")
        took_s = time.monotonic() - started_s
        if answer.status != _OK or took_s > settings.CONTROL_WAIT_MAX_S:
            self._count("wrong", f"the list of models: status {answer.status}, {took_s:.1f} s")
        else:
            self._count("ok listing")

    async def _unknown(self, _dice: random.Random) -> None:
        answer = await self._exchange("POST", CHATS, _chat_body("zulu", 1))
        if answer.status != _NOT_FOUND or answer.wait_s > settings.CONTROL_WAIT_MAX_S:
            self._count("wrong", f"unknown model: {answer.status} after {answer.wait_s:.1f} s")
        else:
            self._count("ok unknown model")


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


def _chat_body(model: str, count: int) -> dict[str, object]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": messages, "max_tokens": count}
