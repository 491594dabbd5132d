"""Models on another machine and filters on our own, through a whole router."""

import asyncio
import json

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.router_process import DEADLINE_S
from tests.support.scripted_engine import ScriptedEngine, answer

pytestmark = pytest.mark.asyncio

LIST = answer(b'{"object":"list","data":[{"id":"far-model"}]}')
PEER_KEY = "sk-peer-canary"


async def test_a_peers_models_are_models_of_this_endpoint(start_router: StartRouter) -> None:
    async with ScriptedEngine(LIST) as remote:
        router = await start_router(
            models=("alpha",),
            router={
                "log_level": "debug",
                "api_keys": [
                    {"key": "k-ann", "name": "ann", "scopes": ["inference"], "models": ["alpha"]},
                    {"key": "k-boss", "name": "boss", "max_in_flight": 9},
                ],
            },
            peers={
                "office": {
                    "url": f"http://127.0.0.1:{remote.port}",
                    "api_key": PEER_KEY,
                    "filters": {"set_params": {"top_k": 1}},
                }
            },
        )
        boss, ann = {"X-Api-Key": "k-boss"}, {"X-Api-Key": "k-ann"}

        async def listed(headers: dict[str, str]) -> list[str]:
            found = await router.client.get("/v1/models", headers=headers)
            return [one["id"] for one in found.json()["data"]]

        async with asyncio.timeout(DEADLINE_S):
            while "far-model" not in await listed(boss):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0)
        assert await listed(ann) == ["alpha"]

        found = await router.client.post(CHAT, json=body("far-model"), headers=boss)
        assert (found.status_code, found.json()["object"]) == (200, "list")
        seen = remote.requests[-1]
        assert seen.fields[b"authorization"] == f"Bearer {PEER_KEY}".encode()
        assert b"k-boss" not in seen.head
        assert json.loads(seen.body) == body("far-model") | {"top_k": 1}

        found = await router.client.post(CHAT, json=body("office/far-model"), headers=boss)
        assert found.status_code == 200
        assert json.loads(remote.requests[-1].body)["model"] == "far-model"

        found = await router.client.post(CHAT, json=body("far-model"), headers=ann)
        assert (found.status_code, found.json()["error"]["code"]) == (404, "model_not_found")
        found = await router.client.get("/admin/status", headers=ann)
        assert found.status_code == 403
    found = await router.client.post(CHAT, json=body("far-model"), headers=boss)
    assert (found.status_code, found.json()["error"]["code"]) == (502, "peer_unavailable")
    assert PEER_KEY not in found.text
    assert (await router.client.post(CHAT, json=body("alpha"), headers=boss)).status_code == 200
