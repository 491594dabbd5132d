"""The router's own keys are nobody else's business."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import process_of

pytestmark = pytest.mark.asyncio

KEY, TOKEN, VARIABLE = "canary-key-8fb1", "canary-token-77ac", "canary-variable-30de"


async def test_no_key_or_token_reaches_an_engine_or_a_log(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(
        models=("alpha",),
        router={"api_keys": [KEY], "admin_token": TOKEN, "log_level": "debug"},
        env={"LLAMA_API_KEY": VARIABLE, "LLAMA_ROUTER_SECRET": VARIABLE},
    )
    client = router.client
    answers = [
        await client.post(CHAT, json=body("alpha")),
        await client.post(CHAT, json=body("alpha"), headers={"authorization": "Bearer wrong"}),
        await client.get("/logs"),
    ]
    for refused in answers:
        assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")
    answers.append(await client.get("/admin/status", headers={"authorization": f"Bearer {KEY}"}))
    assert (answers[-1].status_code, error_of(answers[-1])["code"]) == (403, "forbidden")
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        answer = await client.post(CHAT, json=body("alpha"), headers=headers)
        assert answer.status_code == 200
        answers.append(answer)
    for headers in ({"authorization": f"Bearer {TOKEN}"}, {"x-admin-token": TOKEN}):
        status = await client.get("/admin/status", headers=headers)
        assert status.status_code == 200
        answers.append(status)
    log = await client.get("/logs", headers={"x-api-key": KEY})
    assert log.status_code == 200

    alpha = await fakes.started("alpha")
    seen = [
        repr((await alpha.state())["last_request"]),
        " ".join(alpha.argv),
        repr(process_of(alpha.pid).environ()),
        repr(process_of(router.pid).cmdline()),
        *(answer.text for answer in answers),
        log.text,
    ]
    client.headers["x-admin-token"] = TOKEN
    await client.post("/admin/unload", json={"model": "alpha"})
    await router.says("stopping -> unloaded")
    seen += [router.out, router.err]
    for text in seen:
        for canary in (KEY, TOKEN, VARIABLE):
            assert canary not in text


async def test_a_secret_that_a_reload_takes_from_the_environment_is_kept_from_engines(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path
) -> None:
    router = await start_router(models=("alpha", "beta"), env={"LATER": VARIABLE})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    # Nobody's secret yet.
    assert VARIABLE in process_of((await fakes.started("alpha")).pid).environ().values()
    path = tmp_path / "router.json"
    content = json.loads(path.read_text())
    content["hub"] = {"token": "${env.LATER}"}
    path.write_text(json.dumps(content))
    assert (await router.client.post("/admin/reload")).status_code == 200
    assert (await router.client.post(CHAT, json=body("beta"))).status_code == 200
    assert VARIABLE not in process_of((await fakes.started("beta")).pid).environ().values()


async def test_a_clients_own_key_goes_on_to_the_engine_when_the_router_has_none(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha",))
    headers = {"authorization": "Bearer for-the-engine", "cookie": "a=b"}
    await router.client.post(CHAT, json=body("alpha"), headers=headers)
    seen = (await (await fakes.started("alpha")).state())["last_request"]["headers"]
    names = {name.lower(): value for name, value in dict(seen).items()}
    assert names["authorization"] == "Bearer for-the-engine"
    assert "cookie" not in names


async def test_pages_of_other_origins_and_unknown_hosts_are_refused_everywhere(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha",))
    for path in (CHAT, "/admin/load"):
        answer = await router.client.post(
            path, json=body("alpha"), headers={"origin": "http://evil.example"}
        )
        assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
    for path in ("/v1/models", "/admin/status", "/v1/health"):
        answer = await router.client.get(path, headers={"host": "evil.example"})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
