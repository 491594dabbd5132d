"""Who asks, for how long, and for what: as the runtime gets to know it."""

from dataclasses import dataclass

import pytest

from llama_router.proxy.gate import ANYBODY, Caller
from llama_router.proxy.guard import Guard
from tests.support.data_plane import DataPlane, data_plane, get, post
from tests.support.fake_gate import Submission
from tests.support.scripted_engine import answer

pytestmark = pytest.mark.asyncio


@dataclass(frozen=True)
class Key:
    key: str
    name: str
    priority: int = 0
    batch: bool = False
    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    max_in_flight: int = 0


KEYS = (Key("k-ann", "ann", priority=3), Key("k-jobs", "jobs", batch=True), Key("k-bob", "bob"))
BOB = b"x-api-key: k-bob\r\n"
BOBS_BATCH = Caller("bob", is_batch=True)


async def submitted(plane: DataPlane, request: bytes) -> Submission:
    await plane.ask(request)
    return plane.gate.submissions[-1]


@pytest.mark.parametrize(
    ("fields", "caller"),
    [
        (b"x-api-key: k-ann\r\n", Caller("ann", 3)),
        (b"Authorization: Bearer k-jobs\r\n", Caller("jobs", is_batch=True)),
        (BOB + b"X-Router-Class: batch\r\n", BOBS_BATCH),
        (BOB + b"X-Router-Class: Interactive\r\n", Caller("bob")),
        # A gateway that adds the field must not be outdone by its client, nor in which order.
        (b"X-Router-Class: batch\r\nX-Router-Class: interactive\r\n" + BOB, BOBS_BATCH),
        (b"X-Router-Class: interactive\r\nX-Router-Class: batch\r\n" + BOB, BOBS_BATCH),
        # A key for batches stays one.
        (b"x-api-key: k-jobs\r\nX-Router-Class: interactive\r\n", Caller("jobs", is_batch=True)),
    ],
)
async def test_a_key_says_whose_request_it_is(fields: bytes, caller: Caller) -> None:
    async with data_plane(answer(), guard=Guard(api_keys=KEYS)) as plane:
        for _ in range(2):
            assert (await submitted(plane, post(fields=fields))).caller == caller


async def test_without_keys_there_are_still_batches() -> None:
    async with data_plane(answer()) as plane:
        assert (await submitted(plane, post())).caller == ANYBODY
        found = await submitted(plane, post(fields=b"x-router-class: batch\r\n"))
        assert found.caller == Caller(is_batch=True)
        assert b"x-router-class" not in plane.engine.requests[-1].fields


@pytest.mark.parametrize(
    "fields",
    [
        b"x-router-class: urgent\r\n",
        b"x-router-class:\r\n",
        b"x-router-class: batch, interactive\r\n",
        b"x-router-class: b\xc3\xa4tch\r\n",
        b"x-router-class: batch\r\nx-router-class: urgent\r\n",
    ],
)
async def test_a_class_that_there_is_not_is_refused(fields: bytes) -> None:
    async with data_plane(answer()) as plane:
        found = await plane.ask(post(fields=fields))
        assert (found.status, b"'batch' or 'interactive'" in found.body) == (400, True)
        assert plane.gate.submissions == []


@pytest.mark.parametrize(
    ("body", "limit_s", "seconds"),
    [
        (b'{"model":"tiny"}', None, None),
        (b'{"model":"tiny","keep_alive":"5m"}', None, 300.0),
        (b'{"model":"tiny","keep_alive":-1}', None, -1.0),
        (b'{"ttl": 60, "model":"tiny"}', None, 60.0),
        (b'{"model":"tiny","keep_alive":-1}', 600.0, 600.0),
        (b'{"model":"tiny","keep_alive":0}', 600.0, 0.0),
        (b'{"model":"tiny","keep_alive":"5m"}', 0.0, None),
        (b'{"model":"tiny","ttl":{"of":"the engine"}}', None, None),
    ],
)
async def test_a_body_says_how_long_its_model_is_to_stay(
    body: bytes, limit_s: float | None, seconds: float | None
) -> None:
    async with data_plane(answer(), max_keep_alive_s=limit_s) as plane:
        assert (await submitted(plane, post(body=body))).keep_alive_s == seconds
        # What it is told is for the router; the engine gets all of it nevertheless.
        assert plane.engine.requests[-1].body == body


async def test_a_large_body_says_so_too() -> None:
    # Read aside, by another process.
    body = b'{"model":"tiny","keep_alive":"1h","x":"%b"}' % (b"y" * 2_000_000)
    async with data_plane(answer()) as plane:
        assert (await submitted(plane, post(body=body))).keep_alive_s == 3600.0


async def test_a_keep_alive_that_means_nothing_is_refused() -> None:
    async with data_plane(answer()) as plane:
        found = await plane.ask(post(body=b'{"model":"tiny","keep_alive":"soon"}'))
        assert (found.status, b'"param":"keep_alive"' in found.body) == (400, True)
        assert plane.gate.submissions == []


@pytest.mark.parametrize(
    ("request_", "takes_slot"),
    [
        (post(), True),
        (post(b"/v1/embeddings"), True),
        (post(b"/rerank"), True),
        (post(b"/tokenize"), False),
        (post(b"/v1/messages/count_tokens"), False),
        (post(b"/upstream/tiny/v1/chat/completions"), True),
        (post(b"/upstream/tiny/detokenize"), False),
        (get(b"/upstream/tiny/slots"), False),
        (get(b"/tiny/props"), False),
    ],
)
async def test_what_needs_no_slot_of_an_engine_is_told(request_: bytes, takes_slot: bool) -> None:  # noqa: FBT001
    async with data_plane(answer()) as plane:
        assert (await submitted(plane, request_)).takes_slot is takes_slot
