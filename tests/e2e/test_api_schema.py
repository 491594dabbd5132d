"""A whole router answers whatever its API's description allows, and what it does not, as described.

For longer: ``API_FUZZ_EXAMPLES=200 pytest tests/e2e/test_api_schema.py -o timeout=0``, or against a
router that runs: ``python -m tests.support.api_fuzz URL --token TOKEN --examples 200``.
"""

import asyncio
import os
import random
import signal
from typing import Any

import pytest
from schemathesis import openapi

from tests.e2e.conftest import StartRouter
from tests.support.api_fuzz import fuzz

pytestmark = pytest.mark.asyncio

EXAMPLES = int(os.environ.get("API_FUZZ_EXAMPLES", "6"))
TOKEN = "the-admin-token"
# Known to be there; half of the cases are about them.
BODIES: dict[str, dict[str, Any]] = {
    "/admin/load": {"model": "alpha"},
    "/admin/unload": {"model": "alpha"},
    "/admin/plan": {"model": "beta"},
    "/admin/profiles/active": {"name": "work"},
    "/admin/import": {"path": "."},
}


def improve(case: Any, number: int) -> None:  # noqa: ANN401 - schemathesis' own
    """Let every other case be about something that there is."""
    if number % 2:
        return
    if "name" in (case.path_parameters or {}):
        case.path_parameters["name"] = "alpha"
    for field in ("model", "resolved"):
        if field in (case.query or {}):
            case.query[field] = "alpha"
    if case.path in BODIES:
        case.body = BODIES[case.path]


@pytest.mark.timeout(60 + 20 * EXAMPLES)
async def test_no_answer_of_a_running_router_is_a_fault_or_other_than_described(
    start_router: StartRouter,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    router = await start_router(
        startup_model="alpha",
        models=("alpha", "beta"),
        # In a folder of its own: what a case imports is not looked for all over this machine.
        router={"api_keys": ["a-key"], "admin_token": TOKEN, "watch_models": False},
        hub={"offline": True},
        profiles={"work": {"pins": {"beta": "alpha"}}},
        selectors={"any": {"strategy": "warm", "targets": ["alpha", "beta"]}},
        is_clean=False,
    )
    headers = {"authorization": f"Bearer {TOKEN}", "x-api-key": "a-key"}
    described = (await router.client.get("/openapi.json", headers=headers)).json()
    outcome = await asyncio.to_thread(
        fuzz,
        openapi.from_dict(described),
        examples=EXAMPLES,
        number=seed,
        headers=headers,
        # It goes on until its client leaves.
        skip=[("GET", "/admin/events")],
        improve=improve,
        base_url=router.url,
    )
    assert outcome.faults == [], "\n".join(outcome.faults)
    assert (
        len({label for label, _ in outcome.answers})
        == sum(map(len, described["paths"].values())) - 1
    )
    assert {200, 201, 400, 404} <= set(outcome.statuses)
    assert sum(outcome.statuses.values()) > 200
    assert "fault in" not in router.err
    router.send(signal.SIGTERM)
    assert await router.ended() == 0
