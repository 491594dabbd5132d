"""Requests that alternate between two models that cannot run together: what a policy makes of it.

The worst case of a router that swaps: in strict order every request costs a load. A router process
is given the requests at an even pace, whatever has become of those before.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from llama_router.stress.behaviour import Behaviour
from llama_router.stress.director import Director
from llama_router.stress.router_process import running_router
from llama_router.stress.settings import ENGINE_FLAGS, Place
from llama_router.stress.verdict import WrongAnswerError, judge
from llama_router.stress.wire import Answer, connect

MODELS = ("alpha", "bravo")
TOKENS_COUNT = 10
_PATH = "/v1/chat/completions"
# Beyond the time that one load for each request would take: then something hangs.
_SPARE_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and how engines and router are set. ``load_s``: on top of the spawn."""

    requests_count: int = 60
    interval_s: float = 0.1
    load_s: float = 2.0
    service_s: float = 0.2
    max_wait_s: float = 20.0
    min_residency_s: float = 5.0

    @property
    def wait_max_s(self) -> float:
        """What nobody waits longer than: patience, one drain and one load."""
        return self.max_wait_s + self.service_s + self.load_s

    @property
    def deadline_s(self) -> float:
        """When a run is given up."""
        turn_s = self.load_s + self.service_s + 1.0
        return self.requests_count * (self.interval_s + turn_s) + _SPARE_S

    def scaled(self, factor: float) -> "Case":
        """Return the case with all times shortened or stretched."""
        return Case(
            self.requests_count,
            self.interval_s * factor,
            self.load_s * factor,
            self.service_s * factor,
            self.max_wait_s * factor,
            self.min_residency_s * factor,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Waits are until the first byte; ``problems`` are answers not as asked."""

    policy: str
    makespan_s: float
    worst_wait_s: float
    median_wait_s: float
    loads_count: int
    problems: tuple[str, ...]


async def run(policy: str, case: Case, folder: Path) -> Outcome:
    """Put the case to a router with ``policy``; ``folder`` is empty and holds what it leaves.

    Raises RouterStartError and OSError, and TimeoutError when it does not come to its end.
    """

    def configure(place: Place) -> dict[str, object]:
        return {
            "version": "1.0",
            "router": {
                "port": place.port,
                "base_port": place.base_port,
                "policy": policy,
                "max_loaded": 1,
                "max_wait_s": case.max_wait_s,
                "min_residency_s": case.min_residency_s,
            },
            "models": [
                {"name": name, "spawn": {"command": [place.llama_server, *ENGINE_FLAGS]}}
                for name in MODELS
            ],
        }

    pace_ms = 1000 * case.service_s / TOKENS_COUNT
    switches = ("--gate-load", "--tokens", str(TOKENS_COUNT), "--token-interval-ms", str(pace_ms))
    calm = Behaviour(switches=switches, ready_after_s=case.load_s)
    async with (
        asyncio.timeout(case.deadline_s),
        Director(0, calm) as director,
        running_router(folder, director.address, secrets.token_hex(8), configure) as router,
    ):
        await _warm_up(router.port)
        known_count = director.started_count
        began_s = time.monotonic()
        asking: list[asyncio.Task[tuple[str, Answer]]] = []
        for number in range(case.requests_count):
            await asyncio.sleep(began_s + number * case.interval_s - time.monotonic())
            ask = _ask(router.port, MODELS[number % len(MODELS)])
            asking.append(asyncio.create_task(ask, name=f"request {number}"))
        answers = await asyncio.gather(*asking)
        makespan_s = time.monotonic() - began_s
        await router.end()
        loads_count = director.started_count - known_count
    waits_s = sorted(answer.wait_s for _, answer in answers)
    return Outcome(
        policy,
        makespan_s,
        waits_s[-1],
        waits_s[len(waits_s) // 2],
        loads_count,
        tuple(problem for model, answer in answers if (problem := _problem(model, answer))),
    )


async def _warm_up(port: int) -> None:
    """Let the router learn how long each load takes; then nothing is loaded again."""
    for model in MODELS:
        await _ask(port, model)
    for model in MODELS:
        client = await connect(port)
        await client.request("POST", "/admin/unload", {"model": model})
        await client.close()


async def _ask(port: int, model: str) -> tuple[str, Answer]:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS_COUNT, "stream": True}
    client = await connect(port)
    try:
        return model, await client.request("POST", _PATH, body)
    finally:
        await client.close()


def _problem(model: str, answer: Answer) -> str:
    try:
        outcome = judge("stream", model, TOKENS_COUNT, answer)
    except WrongAnswerError as error:
        return str(error)
    return "" if outcome == "ok stream" else outcome


def table(case: Case, outcomes: list[Outcome]) -> str:
    """Return outcomes as text, the first being what the others are compared with."""
    lines = [
        f"{'policy':<10}{'makespan':>11}{'ratio':>8}{'loads':>7}{'median wait':>14}{'worst':>10}"
    ]
    for each in outcomes:
        ratio = outcomes[0].makespan_s / each.makespan_s
        lines.append(
            f"{each.policy:<10}{each.makespan_s:>9.2f} s{ratio:>8.2f}{each.loads_count:>7}"
            f"{each.median_wait_s:>12.2f} s{each.worst_wait_s:>8.2f} s"
        )
        lines += [f"  PROBLEM: {problem}" for problem in each.problems]
    lines.append(f"bound of a wait (max_wait_s, one drain, one load): {case.wait_max_s:.2f} s")
    return "\n".join(lines)
