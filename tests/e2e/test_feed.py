"""One feed has all that a page about the router needs."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import DEADLINE_S, FakeEngines
from tests.support.router_process import RouterProcess

pytestmark = pytest.mark.asyncio


class Watcher:
    """Who follows the events; ``until`` gives what has come by when one that fits has."""

    def __init__(self, router: RouterProcess, query: str) -> None:
        self._router = router
        self._query = query
        self._seen: list[dict[str, Any]] = []
        self._came = asyncio.Condition()

    async def watch(self) -> None:
        path = f"/admin/events?{self._query}"
        async with self._router.client.stream("GET", path) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    async with self._came:
                        self._seen.append(json.loads(line[6:]))
                        self._came.notify_all()

    async def until(self, kind: str, **facts: object) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            wanted = {"kind": kind, **facts}.items()
            return [one for one in self._seen if wanted <= one.items()]

        async with asyncio.timeout(DEADLINE_S), self._came:
            await self._came.wait_for(found)
        return found()[0]

    def kinds(self) -> set[str]:
        return {one["kind"] for one in self._seen}


async def test_requests_logs_and_models_are_told_as_asked_for(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha", "beta"))
    everything = Watcher(router, "kinds=model,download,request,log&snapshot=1")
    requests = Watcher(router, "kinds=request&model=beta")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.watch(), name="watch") for one in (everything, requests)]
        snapshot = await everything.until("snapshot")
        assert {model["id"] for model in snapshot["models"]} == {"alpha", "beta"}
        assert snapshot["router"]["requests_under_way"] == 0
        for model in ("alpha", "beta"):
            answer = await router.client.post(CHAT, json=body(model))
            assert answer.status_code == 200
        ended = await everything.until("request_ended", model="alpha")
        started = await everything.until("request_started", model="alpha")
        assert (ended["end"], ended["status"], ended["path"]) == ("-.-", 200, CHAT)
        assert ended["request_id"] == started["request_id"] > 0
        await everything.until("state", model="alpha", new="loaded")
        await everything.until("log", model="")
        alpha = await fakes.started("beta")
        await alpha.say(b"hello <script>\n")
        await everything.until("log", model="beta", line="hello <script>")
        await requests.until("request_ended", model="beta")
        assert requests.kinds() == {"request_started", "request_ended"}
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("is_on", [True, False])
async def test_prompts_are_in_the_history_if_the_config_says_so(
    start_router: StartRouter, *, is_on: bool
) -> None:
    router = await start_router(models=("alpha",), router={"history_prompts": is_on})
    order = body("alpha") | {"messages": [{"role": "user", "content": "tell me a secret"}]}
    assert (await router.client.post(CHAT, json=order)).status_code == 200
    (record,) = (await router.client.get("/admin/history")).json()["requests"]
    assert ("tell me a secret" in record["prompt"]) is is_on
    assert (record["path"], record["status"], record["model"]) == (CHAT, 200, "alpha")
