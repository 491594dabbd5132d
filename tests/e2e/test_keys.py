"""Keys that are made while the router runs: at once, and over a restart."""

import asyncio
import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyRecord
from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of
from tests.support.router_process import DEADLINE_S, RouterProcess

pytestmark = pytest.mark.asyncio


def as_(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def made(router: RouterProcess, boss: str | None, **order: Any) -> str:  # noqa: ANN401 - JSON
    headers = {} if boss is None else as_(boss)
    answer = await router.client.post("/admin/keys", json=order, headers=headers)
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


async def listed(router: RouterProcess, key: str) -> list[str]:
    answer = await router.client.get("/v1/models", headers=as_(key))
    return [model["id"] for model in answer.json()["data"]]


async def test_a_key_holds_at_once_for_what_it_is_for_and_is_gone_at_once(
    start_router: StartRouter,
) -> None:
    router = await start_router(
        models=("alpha", "beta"),
        selectors={"any": {"strategy": "pin", "targets": ["alpha"]}},
    )
    client = router.client
    assert (await client.post(CHAT, json=body("alpha"))).status_code == 200
    refused = await client.post("/admin/keys", json={"name": "ann"})
    assert (refused.status_code, error_of(refused)["code"]) == (409, "no_admin_left")
    boss = await made(router, None, name="boss", scopes=["admin", "inference"])
    ann = await made(router, boss, name="ann", models=["al*"])

    async def ask(model: str, key: str) -> httpx2.Response:
        return await client.post(CHAT, json=body(model), headers=as_(key))

    # From the next request on, on connections that are open as on new ones.
    assert (await client.post(CHAT, json=body("alpha"))).status_code == 401
    assert (await ask("alpha", ann)).status_code == 200
    assert (await ask("beta", boss)).status_code == 200
    assert (await ask("beta", ann)).status_code in (403, 404)
    assert await listed(router, ann) == ["alpha"]
    assert await listed(router, boss) == ["alpha", "beta", "any"]
    admin = await client.get("/admin/keys", headers=as_(ann))
    assert (admin.status_code, error_of(admin)["code"]) == (403, "forbidden")
    # A client cannot say whose key it has.
    forged = {**as_(ann), "x-router-key": "boss", "x-router-scopes": "admin,inference"}
    names = (await client.get("/v1/models", headers=forged)).json()["data"]
    assert [model["id"] for model in names] == ["alpha"]
    gone = await client.delete("/admin/keys/ann", headers=as_(boss))
    assert gone.json()["name"] == "ann"
    assert (await ask("alpha", ann)).status_code == 401


async def test_keys_outlive_the_router_and_protect_a_public_one(
    start_router: StartRouter,
) -> None:
    first = await start_router(models=("alpha",))
    boss = await made(first, None, name="boss", scopes=["admin", "inference"])
    first.send(signal.SIGTERM)
    assert await first.ended() == 0
    # Without keys it would be refused.
    second = await start_router(models=("alpha",), router={"host": "0.0.0.0"})
    assert (await second.client.get("/v1/models")).status_code == 401
    assert await listed(second, boss) == ["alpha"]
    last = await second.client.delete("/admin/keys/boss", headers=as_(boss))
    assert (last.status_code, error_of(last)["code"]) == (409, "last_key")


async def test_who_follows_events_or_logs_is_cut_off_with_the_key_and_told_why(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha",))
    boss = await made(router, None, name="boss", scopes=["admin", "inference"])
    ann = await made(router, boss, name="ann", scopes=["admin", "inference"])
    begun = asyncio.Barrier(3)

    async def follow(path: str) -> str:
        """Return what has come when it is cut."""
        text = ""
        async with router.client.stream("GET", path, headers=as_(ann)) as answer:
            assert answer.status_code == 200
            await begun.wait()
            try:
                async for part in answer.aiter_text():
                    text += part
            except httpx2.RemoteProtocolError:
                return text
        raise AssertionError("it has come to a proper end")

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        events = group.create_task(follow("/admin/events?snapshot=1"), name="events")
        group.create_task(follow("/logs?follow=true"), name="log")
        await begun.wait()
        gone = await router.client.delete("/admin/keys/ann", headers=as_(ann))
        assert gone.status_code == 200
    last = events.result().strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"


def give_name(file: Path, name: str, key: str) -> None:
    content = json.loads(file.read_text())
    content["router"]["api_keys"] = [{"key": key, "name": name}]
    file.write_text(json.dumps(content))


async def test_a_reload_reads_keys_that_another_process_has_made_and_names_those_in_vain(
    start_router: StartRouter, tmp_path: Path
) -> None:
    router = await start_router(models=("alpha",))
    boss = await made(router, None, name="boss", scopes=["admin", "inference"])

    def add_elsewhere() -> None:
        file = KeyFile(router.state_dir / KEYS_FILE_NAME)
        digest = hashlib.sha256(b"k-ann").hexdigest()
        scopes = ("inference",)
        file.add(KeyRecord(id="id1", name="ann", digest=digest, scopes=scopes, created_s=1.0))

    await asyncio.to_thread(add_elsewhere)
    reloaded = await router.client.post("/admin/reload", headers=as_(boss))
    assert reloaded.json()["warnings"] == []
    assert (await router.client.get("/v1/models", headers=as_("k-ann"))).status_code == 200
    await asyncio.to_thread(give_name, tmp_path / "router.json", "ann", "k-new")
    reloaded = await router.client.post("/admin/reload", headers=as_(boss))
    assert "llama-router keys revoke id1" in reloaded.json()["warnings"][0]
    for key, status in (("k-ann", 401), ("k-new", 200)):
        assert (await router.client.get("/v1/models", headers=as_(key))).status_code == status
    answer = await router.client.get("/admin/keys", headers=as_(boss))
    keys = {(one["name"], one["source"]): one["scopes"] for one in answer.json()["keys"]}
    assert keys["ann", "store"] == []


async def test_the_page_over_the_api_opens_before_anybody_has_typed_a_key(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha",), router={"admin_token": "a-token"})
    page = await router.client.get("/admin/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await router.client.get("/admin/keys")).status_code == 401
