"""The API's answers are as its own description says, whatever it is asked."""

import random

from schemathesis import openapi

from llama_router.control.app import create_app
from llama_router.control.following import Streams
from tests.support.api_fuzz import fuzz
from tests.support.control_facade import ALPHA, Router
from tests.support.control_fakes import Configuration, KeyHolder, Profiles, Settings


def test_no_answer_is_a_fault_or_other_than_described() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    streams = Streams()
    # Whoever follows gets what there is, and a proper end.
    streams.end()
    app = create_app(
        Router(),
        version="1",
        streams=streams,
        configuration=Configuration(),
        settings=Settings(),
        profiles=Profiles(),
        keys=KeyHolder(),
    )

    def improve(case: object, number: int) -> None:
        parameters = getattr(case, "path_parameters", None)
        if number % 2 and parameters:
            parameters["name"] = ALPHA.id

    schema = openapi.from_asgi("/openapi.json", app)
    outcome = fuzz(schema, examples=8, number=seed, improve=improve)
    assert outcome.faults == [], "\n".join(outcome.faults)
    assert {200, 201, 400, 404} <= set(outcome.statuses)
    assert not any(status >= 500 for status in outcome.statuses)
