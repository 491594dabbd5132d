"""A secret in every place where one can be put is found in no output, log, error or process list.

What an engine's own ``env`` says is for that engine, and for nobody else.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import DEADLINE_S, FakeEngines
from tests.support.router_process import RouterProcess, marked_like, process_of

pytestmark = pytest.mark.asyncio

PLACES = (
    "api-key",
    "other-api-key",
    "admin-token",
    "hub-token",
    "hf-token",
    "peer-key",
    "engine-env",
    "default-env",
    "client-cookie",
    "client-header",
    "client-wrong-key",
    "prompt",
    "macro",
    "router-env",
    "moved",
)
CANARIES = {place: f"canary-{place}-5a1f{number:02}" for number, place in enumerate(PLACES)}
HASHED = "canary-hashed-key-77"


def config() -> dict[str, Any]:
    hashed = hashlib.sha256(HASHED.encode()).hexdigest()
    return {
        "macros": {"secret": CANARIES["macro"]},
        "defaults": {"spawn": {"env": {"DEFAULT_SECRET": CANARIES["default-env"]}}},
        "router": {
            "api_keys": [
                CANARIES["api-key"],
                {"key": CANARIES["other-api-key"], "name": "other"},
                {"key": f"sha256:{hashed}", "name": "hashed"},
                {"key": "${secret}", "name": "by macro"},
            ],
            "admin_token": "${env.OWN_ADMIN_TOKEN}",
            "log_level": "debug",
        },
        "hub": {"token": CANARIES["hub-token"], "offline": True},
        "peers": {
            "other": {
                "url": "http://127.0.0.1:9",
                "api_key": CANARIES["peer-key"],
                "models": ["remote"],
            }
        },
    }


def admin() -> dict[str, str]:
    return {"x-admin-token": CANARIES["admin-token"]}


def client_headers(key: str) -> dict[str, str]:
    return {
        "authorization": f"Bearer {key}",
        "x-api-key": CANARIES["client-header"],
        "cookie": f"session={CANARIES['client-cookie']}",
    }


def files_below(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        # The router may put another in its place, or remove it, at any moment.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path.read_bytes().decode("latin-1")


def processes_of(router: RouterProcess) -> Iterator[str]:
    for pid in {router.pid, *marked_like(router.pid)}:
        with contextlib.suppress(psutil.Error):
            yield " ".join(process_of(pid).cmdline())


async def ask_everything(router: RouterProcess) -> list[str]:
    """Ask every route that only reads, and make many mistakes; give what was answered."""
    client, seen = router.client, []

    async def ask(method: str, path: str, **rest: Any) -> httpx2.Response:  # noqa: ANN401 - httpx'
        answer = await client.request(method, path, headers=admin(), **rest)
        seen.append(f"{answer.headers!r}\n{answer.text}")
        return answer

    described = (await ask("GET", "/openapi.json")).json()
    for path, operations in described["paths"].items():
        if "get" in operations and path != "/admin/events":
            for name in ("alpha", "remote", "nobody"):
                await ask("GET", path.replace("{name}", name).replace("{number}", "1"))
    for query in ("resolved=alpha", "resolved=remote"):
        await ask("GET", f"/admin/config?{query}")
    wrong = [CANARIES["moved"]]
    for path in ("/admin/load", "/admin/keys", "/admin/import", "/admin/downloads"):
        await ask("POST", path, json=wrong)
        await ask("POST", path, content=json.dumps(wrong)[:-3].encode())
    edits = [
        {"op": "set", "path": ["router", "admin_token"], "value": CANARIES["moved"]},
        {"op": "set", "path": ["peers", "x", "api_key"], "value": CANARIES["moved"]},
    ]
    for edit in edits:
        await client.patch(
            "/admin/config", json={"edits": [edit]}, headers={**admin(), "if-match": '"x"'}
        )
    return seen


async def test_a_secret_is_found_nowhere(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path
) -> None:
    content = config()
    router = await start_router(
        models={
            "alpha": {"spawn": {"env": {"ENGINE_SECRET": CANARIES["engine-env"]}}},
            "beta": {},
        },
        router=content.pop("router"),
        env={
            "HF_TOKEN": CANARIES["hf-token"],
            "LLAMA_API_KEY": CANARIES["router-env"],
            "LLAMA_ROUTER_SECRET": CANARIES["router-env"],
            "OWN_ADMIN_TOKEN": CANARIES["admin-token"],
        },
        **content,
    )
    client = router.client
    told: list[str] = []

    async def follow() -> None:
        path = "/admin/events?kinds=model,download,request,log&snapshot=1"
        async with client.stream("GET", path, headers=admin()) as answer:
            assert answer.status_code == 200
            async for part in answer.aiter_text():
                told.append(part)
                follows.set()

    follows = asyncio.Event()
    async with asyncio.timeout(4 * DEADLINE_S), asyncio.TaskGroup() as group:
        following = group.create_task(follow(), name="follow")
        await follows.wait()
        made = (await client.post("/admin/keys", json={"name": "st"}, headers=admin())).json()
        stored = made.pop("key")
        seen = [json.dumps(made)]
        question = [{"role": "user", "content": CANARIES["prompt"]}]
        keys = (CANARIES["api-key"], HASHED, stored, CANARIES["macro"])
        for model, status in (("alpha", 200), ("remote", 502), ("beta", 200)):
            for key in keys:
                order = {"model": model, "messages": question}
                answer = await client.post(CHAT, json=order, headers=client_headers(key))
                assert answer.status_code == status, answer.text
                if status != 200:
                    seen.append(answer.text)
        engine = await fakes.started("beta")
        seen += [" ".join(engine.argv), repr((await engine.state())["last_request"]["headers"])]
        environment = process_of(engine.pid).environ()
        seen += processes_of(router)
        for headers in ({}, client_headers(CANARIES["client-wrong-key"])):
            refused = await client.post(CHAT, json=body("alpha"), headers=headers)
            seen.append(refused.text)
        seen += await ask_everything(router)
        seen.append(await broken_configs(router, ConfigFile(tmp_path / "router.json")))
        following.cancel()
    seen += files_below(router.state_dir)
    canaries = {**CANARIES, "stored": stored, "hashed": HASHED}
    for place, canary in canaries.items():
        for text in (*seen, *told):
            assert canary not in text, (place, text[max(0, text.find(canary) - 300) :][:600])
        assert canary not in router.out + router.err, place
        # The person's own token for the hub is for whichever program wants it; what the config
        # gives to all engines is meant for them.
        if place not in ("hf-token", "default-env"):
            assert canary not in repr(environment), place


class ConfigFile:
    """A file of a few lines: reading it holds nobody up."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def text(self) -> str:
        return self.path.read_text()

    @text.setter
    def text(self, text: str) -> None:
        self.path.write_text(text)


async def broken_configs(router: RouterProcess, file: ConfigFile) -> str:
    """Let the router read configs whose secrets stand where they should not; give its answers."""
    good = file.text
    seen = []
    moved = CANARIES["moved"]
    for section, value in (
        ("router", {"admin_token": [moved]}),
        ("router", {"admin_token": f"{moved}\n"}),
        ("router", {"api_keys": [{"name": "x", "kei": moved}]}),
        ("router", {"api_keys": [{"name": "x", moved: 1}]}),
        ("router", {"api_keys": {moved: moved}}),
        ("peers", {"x": {"url": "no url", "api_key": moved}}),
        ("peers", {"x": {"url": "http://a", "api_key": {"a": moved}}}),
        ("hub", {"token": f"a b {moved}"}),
        ("default_spawn", {"env": {"A": [moved]}}),
    ):
        file.text = json.dumps({**json.loads(good), section: value})
        answer = await router.client.post("/admin/reload", headers=admin())
        assert answer.status_code == 400, answer.text
        seen.append(answer.text)
        checked = await router.client.post(
            "/admin/config/validate", json={"text": file.text}, headers=admin()
        )
        seen.append(checked.text)
        seen.append((await router.client.get("/admin/config", headers=admin())).text)
    file.text = f'{{"router": {{"admin_token": "{moved}'
    seen.append((await router.client.post("/admin/reload", headers=admin())).text)
    seen.append((await router.client.get("/admin/config", headers=admin())).text)
    file.text = good
    return "\n".join(seen)
