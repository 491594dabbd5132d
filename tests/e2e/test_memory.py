"""Models that share the machine's memory, or cannot."""

import signal
from pathlib import Path
from typing import Any

import pytest

from llama_router.catalog.tiny import write_model
from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import RouterProcess

pytestmark = pytest.mark.asyncio

GIB = 2**30
# Two of the models below, but not three.
TIGHT = {"memory_aware": True, "memory": {"cpu": "3GiB"}, "min_residency_s": 0.0}
SMALL = {"memory": "1GiB"}
LARGE = {"memory": "2GiB"}
MEASURE_SOON = "from llama_router.runtime import memory\nmemory.FIRST_PAUSE_S = 0.02\n"


async def ask(router: RouterProcess, model: str) -> int:
    return (await router.client.post(CHAT, json=body(model))).status_code


async def states(router: RouterProcess, *models: str) -> list[object]:
    found = [await router.state_of(model) for model in models]
    return [status.get("state", status.get("value")) for status in found]


async def test_models_that_fit_run_side_by_side(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models={"alpha": LARGE, "beta": SMALL}, router=TIGHT)
    await router.says("memory for models: 3.0 of ")
    for model in ("alpha", "beta", "alpha"):
        assert await ask(router, model) == 200
    assert await states(router, "alpha", "beta") == ["loaded", "loaded"]
    assert len(fakes.engines) == 2


async def test_models_that_do_not_fit_take_turns(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    models = {"alpha": LARGE, "beta": LARGE, "small": SMALL}
    router = await start_router(models=models, router=TIGHT)
    for model in ("alpha", "small", "beta"):
        assert await ask(router, model) == 200
    # Only as many go as have to.
    assert await states(router, "alpha", "small", "beta") == ["unloaded", "loaded", "loaded"]
    await fakes.engines[0].gone()


async def test_a_model_that_can_never_fit_is_refused_and_costs_nobody_his_place(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    models = {"alpha": SMALL, "huge": {"memory": "4GiB"}}
    router = await start_router(models=models, router=TIGHT)
    assert await ask(router, "alpha") == 200
    answer = await router.client.post(CHAT, json=body("huge"))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "does_not_fit"
    assert await states(router, "alpha") == ["loaded"]
    assert len(fakes.engines) == 1


async def test_what_was_measured_is_known_after_a_restart(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path
) -> None:
    models: dict[str, dict[str, Any]] = {}
    for name in ("alpha", "beta"):
        (tmp_path / name).touch()
        models[name] = {"path": str(tmp_path / name)}
    first = await start_router(models=models, router=TIGHT, prelude=MEASURE_SOON)
    for model in ("alpha", "beta"):
        # Of a command nothing is known, so it runs alone at first.
        assert await ask(first, model) == 200
        await first.says(f"{model} needs ")
    first.send(signal.SIGTERM)
    await first.ended()
    second = await start_router(models=models, router=TIGHT)
    for model in ("alpha", "beta"):
        assert await ask(second, model) == 200
    assert await states(second, "alpha", "beta") == ["loaded", "loaded"]
    assert len(fakes.engines) == 4


async def test_an_engine_that_runs_out_of_memory_is_expected_to_need_more_and_is_not_tried_on(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--out-of-memory", models={"alpha": SMALL}, router=TIGHT)
    answer = await router.client.post(CHAT, json=body("alpha"))
    assert answer.status_code >= 500
    assert "ran out of memory" in answer.json()["error"]["message"]
    shown = (await router.client.get("/v1/models/alpha")).json()
    assert shown["residency"]["memory"] == {"cpu": GIB * 5 // 4 + 1}
    assert await ask(router, "alpha") == 503
    assert len(fakes.engines) == 1


@pytest.mark.parametrize("fault", ["garbage", "gone", "no program"])
async def test_a_broken_model_does_not_cost_a_healthy_one_its_place(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path, fault: str
) -> None:
    models: dict[str, dict[str, Any]] = {}
    for name in ("healthy", "broken"):
        file = tmp_path / f"{name}.gguf"
        write_model(file, "a word", name=name)
        models[name] = {"path": str(file), **LARGE}
    if fault == "no program":
        models["broken"]["spawn"] = {"command": ["/nowhere/engine", "--port", "$port"]}
    router = await start_router(models=models, router=TIGHT, as_llama_server=True)
    assert await ask(router, "healthy") == 200
    if fault == "garbage":
        (tmp_path / "broken.gguf").write_bytes(b"<html>no model</html>")
    elif fault == "gone":
        (tmp_path / "broken.gguf").unlink()
    answer = await router.client.post(CHAT, json=body("broken"))
    assert answer.status_code >= 500
    reasons = {"garbage": "no GGUF file", "gone": "is gone", "no program": "does not exist"}
    assert reasons[fault] in answer.json()["error"]["message"]
    assert await states(router, "healthy") == ["loaded"]
    assert len(fakes.engines) == 1


async def test_models_named_for_it_are_loaded_at_the_start_and_a_failure_is_only_said(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    settings = {**TIGHT, "preload": ["alpha", "nobody", "beta"]}
    router = await start_router(models={"alpha": SMALL, "beta": SMALL}, router=settings)
    await router.becomes("alpha", "loaded")
    await router.becomes("beta", "loaded")
    await router.says("preload: model 'nobody' is not loaded")
    assert len(fakes.engines) == 2
