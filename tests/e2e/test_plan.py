"""What a person finds out about a router that runs: plans, events, the status, the history."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of, events
from tests.support.fake_engine_control import DEADLINE_S, FakeEngines
from tests.support.router_process import RouterProcess

pytestmark = pytest.mark.asyncio

MIB = 2**20
# Room for one of the two at a time.
SMALL: dict[str, Any] = {
    "memory_aware": True,
    "memory": {"cpu": 100 * MIB},
    "memory_reserve": 0,
    "min_residency_s": 0,
}
MODELS = {name: {"memory": {"cpu": 60 * MIB}} for name in ("alpha", "beta")}


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run the command line beside the router."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llama_router", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(4 * DEADLINE_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_plan_says_who_would_go_for_a_model_and_then_that_happens(
    start_router: StartRouter, tmp_path: Path
) -> None:
    router = await start_router(models=MODELS, router=SMALL)
    order = {"model": "beta"}
    empty = (await router.client.post("/admin/plan", json=order)).json()
    assert (empty["state"], empty["fits"], empty["victims"]) == ("unloaded", True, [])
    assert (empty["needs"], empty["free"]) == ({"cpu": 60 * MIB}, {"cpu": 100 * MIB})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    plan = (await router.client.post("/admin/plan", json=order)).json()
    assert [victim["model"] for victim in plan["victims"]] == ["alpha"]
    assert plan["free"] == {"cpu": 40 * MIB}
    assert plan["wait_s"] > 0
    config = ("--config", str(tmp_path / "router.json"), "--port", str(router.port))
    status, text, error = await command(*config, "plan", "beta")
    assert (status, error) == (0, "")
    assert text.startswith("beta is unloaded: in place of alpha\n")
    assert "needs     60.0\nfree now  40.0\n" in text
    assert await router.state_of("alpha") == {"value": "loaded"}
    assert (await router.client.post(CHAT, json=body("beta"))).status_code == 200
    gone = (await router.client.get("/v1/models/alpha")).json()
    assert gone["status"]["value"] == "unloaded"
    assert "beta" in gone["residency"]["last_eviction"]
    unknown = await router.client.post("/admin/plan", json={"model": "nobody"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")


async def test_the_status_shows_devices_and_what_models_hold_of_them(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=MODELS, router={**SMALL, "ttl_s": 600})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    status = (await router.client.get("/admin/status")).json()
    (device,) = [one for one in status["devices"] if one["name"] == "cpu"]
    assert device["budget_bytes"] == 100 * MIB
    assert (device["reserved_bytes"], device["free_bytes"]) == (60 * MIB, 40 * MIB)
    assert device["total_bytes"] > 100 * MIB
    (alpha,) = status["models"]
    assert (alpha["id"], alpha["state"]) == ("alpha", "loaded")
    assert (alpha["memory"], alpha["is_booked"]) == ({"cpu": 60 * MIB}, True)
    assert (alpha["ttl_s"], alpha["pinned"]) == (600, False)
    assert alpha["expires_at_s"] > 1.7e9
    beta = (await router.client.get("/v1/models/beta")).json()["residency"]
    assert (beta["memory"], beta["is_booked"]) == ({"cpu": 60 * MIB}, False)


async def test_the_events_tell_what_happens_and_why_and_end_properly_with_the_router(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=MODELS, router=SMALL)
    texts: dict[str, str] = {}

    async def follow(query: str, follows: asyncio.Event) -> None:
        async with router.client.stream("GET", f"/admin/events{query}") as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            follows.set()
            # Raises if the answer has no proper end.
            texts[query] = "".join([part async for part in answer.aiter_text()])

    queries = ("", "?model=beta")
    started = [asyncio.Event() for _ in queries]
    async with asyncio.timeout(4 * DEADLINE_S), asyncio.TaskGroup() as group:
        for query, follows in zip(queries, started, strict=True):
            group.create_task(follow(query, follows), name=f"follow {query}")
        for follows in started:
            await follows.wait()
        for model in ("alpha", "beta"):
            answer = await router.client.post(CHAT, json=body(model))
            assert answer.status_code == 200
        router.send(signal.SIGTERM)
    assert await router.ended() == 0
    found = events(texts[""])
    states = [
        (event["model"], event["old"], event["new"]) for event in found if event["kind"] == "state"
    ]
    assert states[:2] == [("alpha", "unloaded", "loading"), ("alpha", "loading", "loaded")]
    assert ("beta", "loading", "loaded") in states
    # To the very end: the engine that was running is gone.
    assert states[-1] == ("beta", "unloading", "unloaded")
    evicted = next(one for one in found if one["kind"] == "state" and one["new"] == "unloading")
    assert evicted["model"] == "alpha"
    assert "beta" in evicted["reason"]
    of_beta = events(texts["?model=beta"])
    assert {event["model"] for event in of_beta} == {"beta"}
    assert [event for event in found if event["model"] == "beta"] == of_beta


async def test_a_log_that_is_followed_ends_properly_with_the_router(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router()
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    await (await fakes.started("alpha")).say(b"nearly done\n")
    await router.says("[alpha] nearly done")
    async with asyncio.timeout(2 * DEADLINE_S):
        async with router.client.stream("GET", "/logs?follow=1") as answer:
            router.send(signal.SIGTERM)
            text = "".join([part async for part in answer.aiter_text()])
        assert await router.ended() == 0
    assert "[alpha] nearly done\n" in text


async def test_the_history_of_a_running_router_becomes_a_trace_that_is_replayed(
    start_router: StartRouter, tmp_path: Path
) -> None:
    keys = [{"key": "secret-of-ann", "name": "ann"}]
    router = await start_router(models=MODELS, router={**SMALL, "api_keys": keys})
    headers = {"authorization": "Bearer secret-of-ann"}
    asked = ["alpha", "alpha", "beta", "alpha"]
    for model in asked:
        answer = await router.client.post(CHAT, json=body(model), headers=headers)
        assert answer.status_code == 200
    requests = await history_of(router, headers, len(asked))
    assert [request["model"] for request in requests] == asked
    assert {(request["key"], request["end"]) for request in requests} == {("ann", "-.-")}
    assert all(request["total_s"] >= request["first_byte_s"] > 0 for request in requests)
    (last,) = (await router.client.get("/admin/history?limit=1", headers=headers)).json()[
        "requests"
    ]
    assert last == requests[-1]
    lines = await router.client.get("/admin/history?format=jsonl", headers=headers)
    assert [json.loads(line) for line in lines.text.splitlines()] == requests
    store = str(router.state_dir / "store.sqlite3")
    fleet = str(tmp_path / "fleet.json")
    asking = ("--models", fleet, "--url", router.url, "--token", "secret-of-ann")
    for name in ("trace.jsonl", "trace.csv"):
        trace = tmp_path / name
        status, _, error = await command("record", "--store", store, "--out", str(trace), *asking)
        assert (status, error) == (0, f"4 requests written to {trace}\n")
        assert "secret" not in trace.read_text()
        policies = ("--policy", "benefit", "--policy", "arrival", "--json")
        status, text, error = await command("simulate", str(trace), "--models", fleet, *policies)
        assert (status, error) == (0, "")
        assert len(json.loads(text)) == 2
    # The router has gone on.
    answer = await router.client.post(CHAT, json=body("beta"), headers=headers)
    assert answer.status_code == 200


async def history_of(
    router: RouterProcess, headers: dict[str, str], count: int
) -> list[dict[str, Any]]:
    """Ask until the history has so many requests: they are written in batches."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            answer = await router.client.get("/admin/history?since=1h", headers=headers)
            assert answer.status_code == 200, answer.text
            found = answer.json()["requests"]
    return found
