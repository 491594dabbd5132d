"""Whose request it is and how long its model stays, through a whole router."""

import asyncio

import httpx2
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, deltas
from tests.support.fake_engine_control import FakeEngines

pytestmark = pytest.mark.asyncio

KEYS = [
    {"key": "k-ann", "name": "ann"},
    {"key": "k-boss", "name": "boss", "priority": 5},
    {"key": "k-jobs", "name": "jobs", "batch": True},
]


def as_(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


async def test_the_more_important_go_first_and_batches_last(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(
        "--gate-load",
        models={"alpha": {"max_in_flight": 1}},
        router={"api_keys": KEYS, "admin_token": "t"},
    )
    router.client.headers["X-Admin-Token"] = "t"

    async def ask(name: str, headers: dict[str, str]) -> None:
        path = f"{CHAT}?by={name}"
        answer = await router.client.post(path, json=body("alpha"), headers=headers)
        assert answer.status_code == 200

    asked = []
    for count, (name, headers) in enumerate(
        (
            ("jobs", as_("k-jobs")),
            ("anns-batch", as_("k-ann", **{"X-Router-Class": "batch"})),
            ("ann", as_("k-ann")),
            ("boss", as_("k-boss")),
        ),
        1,
    ):
        asked.append(asyncio.create_task(ask(name, headers), name=name))
        await router.busy_with(count)
    alpha = await fakes.started("alpha")
    await alpha.ready()
    await asyncio.gather(*asked)
    # In the order of the engine, to which they go one by one.
    targets = [(await alpha.event("request", method="POST"))["target"] for _ in asked]
    served = [target.removeprefix(f"{CHAT}?by=") for target in targets]
    assert served[:2] == ["boss", "ann"]
    assert sorted(served[2:]) == ["anns-batch", "jobs"]


async def test_a_request_may_say_that_its_model_is_not_needed_any_more(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha",))
    answer = await router.client.post(CHAT, json=body("alpha", keep_alive="30m"))
    assert answer.status_code == 200
    alpha = await fakes.started("alpha")
    assert (await router.state_of("alpha"))["value"] == "loaded"
    await router.client.post(CHAT, json=body("alpha", keep_alive=0))
    await router.becomes("alpha", "unloaded")
    await alpha.gone()
    wrong = await router.client.post(CHAT, json=body("alpha", keep_alive="soon"))
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "keep_alive")


async def test_what_was_asked_is_remembered_by_whom_and_how_long_it_took_but_not_what(
    start_router: StartRouter,
) -> None:
    router = await start_router(models=("alpha",), router={"api_keys": KEYS, "admin_token": "t"})
    router.client.headers["X-Admin-Token"] = "t"
    for stream in (False, True):
        answer = await router.client.post(
            CHAT,
            json=body("alpha", stream=stream, stream_options={"include_usage": True}),
            headers=as_("k-ann"),
        )
        assert answer.status_code == 200
    history = await router.client.get("/admin/history")
    assert "k-ann" not in history.text
    records = history.json()["requests"]
    assert [(record["model"], record["key"], record["end"]) for record in records] == [
        ("alpha", "ann", "-.-"),
        ("alpha", "ann", "-.-"),
    ]
    for record in records:
        assert record["tokens_out"] > 0
        assert 0 <= record["queue_s"] <= record["first_byte_s"] <= record["total_s"]


async def test_a_crowd_is_told_where_it_stands(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(
        "--gate-load",
        models={"alpha": {"max_in_flight": 1}},
        router={"notify_model_swap": True},
    )

    async def watch() -> httpx2.Response:
        return await router.client.post(CHAT, json=body("alpha", stream=True))

    watching = []
    for count in range(1, 4):
        watching.append(asyncio.create_task(watch(), name=f"watch {count}"))
        await router.busy_with(count)
    await (await fakes.started("alpha")).ready()
    texts = ["".join(deltas((await each).text, "reasoning_content")) for each in watching]
    # One at a time is answered; those behind it are told as soon as the model is ready.
    assert "position" not in texts[0]
    positions = [text.count(f"Waiting for alpha: position {n}\n") for text in texts for n in (1, 2)]
    assert positions == [0, 0, 1, 0, 1, 1]
    assert texts[2].index("position 2") < texts[2].index("position 1")
    for text in texts:
        assert text.endswith("alpha is ready\n")
