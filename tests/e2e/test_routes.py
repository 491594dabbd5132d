"""Which request reaches whom, and what is said when it reaches nobody."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import DEADLINE_S, RouterProcess

pytestmark = pytest.mark.asyncio

GAMMA = "org/gamma:Q4"


async def load(router: RouterProcess, model: str) -> None:
    assert (await router.client.post("/admin/load", json={"model": model})).status_code == 200


async def test_root_questions_are_503_without_a_model_and_then_go_to_the_last_dispatched(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    models = {"alpha": {"group": "g"}, "beta": {"group": "g"}}
    router = await start_router(models=models)
    for path in ("/props", "/slots", "/health"):
        answer = await router.client.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "no_models_running")
    for model in ("alpha", "beta"):
        await router.client.post(CHAT, json=body(model))
        assert (await router.client.get("/props")).json()["model_alias"] == model
    await router.client.post(CHAT, json=body("alpha"))
    # A question is no use of a model.
    await router.client.get("/beta/props")
    assert (await router.client.get("/props")).json()["model_alias"] == "alpha"
    assert (await router.client.get("/health")).json() == {"status": "ok"}
    assert len((await router.client.get("/slots")).json()) == 4
    assert len(fakes.engines) == 2


async def test_each_model_has_its_own_props_slots_and_health_also_with_slashes_in_its_id(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha", GAMMA))
    await load(router, GAMMA)
    assert (await router.client.get(f"/{GAMMA}/props")).json()["model_alias"] == GAMMA
    assert (await router.client.get("/org%2Fgamma%3AQ4/props")).json()["model_alias"] == GAMMA
    assert (await router.client.get("/props", params={"model": GAMMA})).status_code == 200
    assert (await router.client.get(f"/{GAMMA}/health")).json() == {"status": "ok"}
    assert len((await router.client.get(f"/{GAMMA}/slots")).json()) == 4


async def test_a_get_loads_nothing_unless_it_says_autoload(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha", GAMMA))
    for path in (f"/{GAMMA}/props", f"/upstream/{GAMMA}/props", "/props?model=alpha"):
        answer = await router.client.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "model_not_loaded")
    for path in ("/v1/models", f"/v1/models/{GAMMA}", "/v1/health", "/logs", "/logs/alpha", "/"):
        assert (await router.client.get(path)).status_code == 200
    assert fakes.engines == []
    answer = await router.client.get(f"/{GAMMA}/props", params={"autoload": "true"})
    assert answer.json()["model_alias"] == GAMMA
    assert len(fakes.engines) == 1


async def test_upstream_is_direct_access_to_a_models_engine(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha", GAMMA))
    answer = await router.client.post(f"/upstream/{GAMMA}{CHAT}", json=body("whatever"))
    assert answer.json()["model"] == GAMMA
    gamma = await fakes.started(GAMMA)
    await router.client.get(f"/upstream/{GAMMA}/slots?fail_on_no_slot=1")
    assert (await gamma.state())["last_request"]["target"] == "/slots?fail_on_no_slot=1"
    missing = await router.client.get("/upstream/nobody/props")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


async def test_unversioned_posts_go_to_the_model_they_name_or_to_the_last_one(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router()
    question = {"prompt": "Hi", "content": "Hi", "input": "Hi", "query": "Hi", "documents": ["a"]}
    nobody = await router.client.post("/tokenize", json={"content": "Hi"})
    assert (nobody.status_code, error_of(nobody)["code"]) == (503, "no_models_running")
    paths = ("/completion", "/infill", "/embedding", "/embeddings", "/rerank", "/reranking")
    for path in (*paths, "/tokenize", "/detokenize", "/apply-template"):
        for given in ({"model": "alpha", **question}, question):
            answer = await router.client.post(path, json=given)
            assert answer.status_code == 200, (path, answer.text)
    assert [engine.alias for engine in fakes.engines] == ["alpha"]


async def test_forms_are_routed_by_their_model_field(start_router: StartRouter) -> None:
    router = await start_router()
    answer = await router.client.post(
        "/v1/audio/transcriptions",
        data={"model": "beta"},
        files={"file": ("speech.wav", b"RIFF" * 100_000, "audio/wav")},
    )
    assert answer.json()["text"] == "beta"
    assert answer.json()["fields"]["file"]["bytes"] == 400_000


async def test_lists_and_health_answer_at_once_while_a_load_hangs(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", as_llama_server=True)
    asked = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="ask")
    alpha = await fakes.started("alpha")
    await alpha.event("listening")
    await alpha.progress(0.43)
    async with asyncio.timeout(DEADLINE_S):
        while (status := await router.state_of("alpha")).get("progress") != 0.43:
            pass
    assert status == {"value": "loading", "progress": 0.43}
    listed = (await router.client.get("/v1/models")).json()["data"]
    assert {each["id"]: each["status"]["value"] for each in listed} == {
        "alpha": "loading",
        "beta": "unloaded",
    }
    assert (await router.client.get("/v1/health")).json() == {"status": "ok"}
    assert (await router.client.get("/health")).status_code == 503
    unknown = await router.client.post(CHAT, json=body("nobody"))
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    status = (await router.client.get("/admin/status")).json()
    assert (status["model_count"], status["requests_under_way"]) == (2, 1)
    await alpha.ready()
    assert (await asked).status_code == 200
    assert await router.state_of("alpha") == {"value": "loaded"}


async def test_what_is_not_there_or_not_meant_so_is_said_in_the_usual_shape(
    start_router: StartRouter,
) -> None:
    router = await start_router()
    client = router.client
    answers = [
        (await client.get("/nothing/here"), 404, "not_found"),
        (await client.put("/v1/models"), 405, "method_not_allowed"),
        (await client.get("/admin/load"), 405, "method_not_allowed"),
        (await client.post(CHAT, json={"messages": []}), 400, "invalid_request"),
        (await client.post(CHAT, content=b"{"), 400, "invalid_request"),
        (await client.post("/admin/load", json={}), 400, "invalid_request"),
        (await client.post("/admin/load", json={"model": "nobody"}), 404, "model_not_found"),
        (await client.post("/admin/load", content=b"{"), 400, "invalid_request"),
        (await client.get("/v1/models/nobody"), 404, "model_not_found"),
        (await client.get("/logs/nobody"), 404, "model_not_found"),
        (await client.get("/nobody/props"), 404, "not_found"),
    ]
    for answer, status, code in answers:
        assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.request.url
    refused = await client.put("/v1/models")
    assert "GET" in refused.headers["allow"]


async def test_head_is_answered_like_get_without_a_body(start_router: StartRouter) -> None:
    router = await start_router()
    got = await router.client.get("/v1/models")
    answer = await router.client.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == got.headers["content-length"]
    # The connection is still in step.
    assert (await router.client.get("/v1/health")).status_code == 200


async def test_proxy_endpoints_open_only_what_they_list(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    closed = {"spawn": {"proxy_endpoints": ["/v1/", "/health"]}}
    router = await start_router(models={"alpha": closed, "beta": {}})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    assert (await router.client.get("/alpha/health")).status_code == 200
    for method, path in (
        ("POST", "/completion"),
        ("GET", "/alpha/props"),
        ("GET", "/upstream/alpha/slots"),
    ):
        given = {"json": {"model": "alpha", "prompt": "Hi"}} if method == "POST" else {}
        answer = await router.client.request(method, path, **given)  # type: ignore[arg-type] # passed on
        assert (answer.status_code, error_of(answer)["code"]) == (404, "endpoint_not_allowed")
        assert "proxy_endpoints" in error_of(answer)["message"]
    assert len(fakes.engines) == 1


async def test_a_stem_that_several_models_have_is_a_400_that_lists_their_ids(
    start_router: StartRouter, tmp_path: Path
) -> None:
    shared = tmp_path / "alpha.gguf"
    shared.touch()
    both: dict[str, dict[str, Any]] = {
        "quick": {"path": str(shared)},
        "thorough": {"path": str(shared), "aliases": ["slow"]},
    }
    router = await start_router(models=both)
    answer = await router.client.post(CHAT, json=body("alpha"))
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    assert "quick, thorough" in error_of(answer)["message"]
    assert (await router.client.post(CHAT, json=body("slow"))).json()["model"] == "thorough"
    assert (await router.client.get("/v1/models/alpha")).status_code == 400


async def test_a_manual_model_without_its_file_is_listed_invalid_and_refused_with_the_reason(
    start_router: StartRouter,
) -> None:
    lost = {"path": "/nowhere/lost.gguf"}
    router = await start_router(models={"alpha": {}, "lost": lost})
    assert "lost  (invalid: its file /nowhere/lost.gguf cannot be read" in router.out
    status = await router.state_of("lost")
    assert (status["value"], status["state"]) == ("unloaded", "invalid")
    assert "No such file" in status["error"]
    answer = await router.client.post(CHAT, json=body("lost"))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert "No such file" in error_of(answer)["message"]
    loaded = await router.client.post("/admin/load", json={"model": "lost"})
    assert (loaded.status_code, error_of(loaded)["code"]) == (404, "model_not_found")
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
