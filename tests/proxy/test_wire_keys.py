"""What API keys open and how much they may ask for, also when they change meanwhile."""

import json

import pytest

from llama_router.proxy.gate import Target
from llama_router.proxy.guard import Guard
from llama_router.proxy.keys import ApiKey, digest_of
from tests.support.data_plane import STREAM, data_plane, get, post, until
from tests.support.raw_client import Answer
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio

ANN = b"x-api-key: k-ann\r\n"
BOB = b"authorization: Bearer k-bob\r\n"
ROOT = b"x-api-key: k-root\r\n"


def key(name: str, **rest: object) -> ApiKey:
    return ApiKey(digest=digest_of(f"k-{name}"), name=name, **rest)  # type: ignore[arg-type]


def code(found: Answer) -> tuple[int, str]:
    return found.status, json.loads(found.body)["error"]["code"]


SCOPES = Guard(
    api_keys=[
        key("ann", scopes=("inference",)),
        key("root", scopes=("admin",)),
        key("both", scopes=("inference", "admin")),
        key("old"),
    ]
)


@pytest.mark.parametrize(
    ("name", "inference", "admin"),
    [("ann", 200, 403), ("root", 403, 200), ("both", 200, 200), ("old", 200, 200)],
)
async def test_scopes_are_apart(name: str, inference: int, admin: int) -> None:
    fields = b"x-api-key: k-%b\r\n" % name.encode()
    async with data_plane(answer(), guard=SCOPES) as plane:
        plane.gate.root = "tiny"
        for request in (
            post(fields=fields),
            post(b"/upstream/tiny/x", fields=fields),
            get(b"/upstream/tiny/x", fields),
            get(b"/slots", fields),
            get(b"/props?model=tiny", fields),
        ):
            assert (await plane.ask(request)).status == inference
        for path in (b"/admin/status", b"/%61dmin/keys"):
            assert (await plane.ask(get(path, fields))).status == admin
        for path in (b"/v1/models", b"/models", b"/", b"/v1/health"):
            assert (await plane.ask(get(path, fields))).status == 200


async def test_with_scoped_keys_nobody_else_is_admin() -> None:
    guard = Guard(api_keys=[key("ann", scopes=("inference",))], admin_token="t")
    async with data_plane(answer(), guard=guard) as plane:
        assert (await plane.ask(get(b"/admin/status", ANN))).status == 403
        assert code(await plane.ask(get(b"/admin/status"))) == (401, "invalid_api_key")
        assert (await plane.ask(get(b"/admin/status", b"x-admin-token: t\r\n"))).status == 200
        assert (await plane.ask(get(b"/v1/models", b"x-admin-token: t\r\n"))).status == 200
        assert (await plane.ask(post(fields=b"x-admin-token: t\r\n"))).status == 403
        assert (await plane.ask(post(fields=b"x-admin-token: x\r\n"))).status == 401


@pytest.mark.parametrize(
    ("guard", "fields", "name", "scopes"),
    [
        (Guard(), b"", b"", b"inference,admin"),
        (Guard(admin_token="t"), b"", b"", b"inference"),
        (Guard(admin_token="t"), b"x-admin-token: t\r\n", b"", b"inference,admin"),
        (SCOPES, ANN, b"ann", b"inference"),
        (SCOPES, ANN + b"authorization: Bearer k-root\r\n", b"ann", b"inference,admin"),
        (SCOPES, ROOT, b"root", b"admin"),
        (
            Guard(api_keys=[ApiKey(digest=digest_of("k-ann"), name="\u00c4nn\r\nx: 1%")]),
            ANN,
            b"%C3%84nn%0D%0Ax:%201%25",
            b"inference,admin",
        ),
    ],
)
async def test_the_control_plane_is_told_who_asks(
    guard: Guard, fields: bytes, name: bytes, scopes: bytes
) -> None:
    forged = b"x-router-key: root\r\nX-Router-Scopes: admin\r\n"
    async with data_plane(answer(), guard=guard) as plane:
        await plane.ask(get(b"/v1/models", forged + fields))
        seen = plane.control.requests[-1]
        assert seen.fields[b"x-router-key"] == name
        assert seen.fields[b"x-router-scopes"] == scopes
        assert seen.head.lower().count(b"x-router-") == 2
        if b"inference" in scopes:
            await plane.ask(post(fields=forged + fields))
            assert b"x-router" not in plane.engine.requests[-1].head.lower()


async def test_models_that_a_key_is_not_for_are_as_if_not_there() -> None:
    guard = Guard(api_keys=[key("ann", models=("user/*", "nick")), key("bob")])
    async with data_plane(answer(), guard=guard) as plane:
        plane.gate.root = "tiny"
        plane.gate.ambiguous = {"twins"}
        plane.gate.targets["nick"] = Target("tiny", name="nick")
        texts = set()
        for model in ("tiny", "nobody", "twins"):
            found = await plane.ask(post(body=json.dumps({"model": model}).encode(), fields=ANN))
            assert code(found) == (404, "model_not_found")
            texts.add(found.body.replace(model.encode(), b"X"))
            for path in (b"/upstream/%b/x", b"/props?model=%b"):
                found = await plane.ask(get(path % model.encode(), ANN))
                assert code(found) == (404, "model_not_found")
        assert len(texts) == 1
        assert code(await plane.ask(get(b"/slots", ANN))) == (503, "no_models_running")
        for model in ("user/repo:Q4", "nick"):
            found = await plane.ask(post(body=json.dumps({"model": model}).encode(), fields=ANN))
            assert found.status == 200
        assert (await plane.ask(post(fields=BOB))).status == 200
        assert (await plane.ask(get(b"/slots", BOB))).status == 200


async def test_a_key_has_so_many_requests_a_minute() -> None:
    guard = Guard(api_keys=[key("ann", requests_per_minute=2), key("bob")])
    async with data_plane(answer(), guard=guard) as plane:
        for _ in range(2):
            assert (await plane.ask(post(fields=ANN))).status == 200
        found = await plane.ask(post(fields=ANN))
        assert code(found) == (429, "rate_limit_exceeded")
        assert 1 <= int(found.fields[b"retry-after"]) <= 30
        assert found.fields[b"x-should-retry"] == b"true"
        # Others are not concerned, nor is looking.
        assert (await plane.ask(post(fields=BOB))).status == 200
        assert (await plane.ask(get(b"/v1/models", ANN))).status == 200


async def test_a_key_has_so_many_requests_at_a_time() -> None:
    guard = Guard(api_keys=[key("ann", max_in_flight=1)])
    async with data_plane(guard=guard) as plane:
        client = await plane.client()
        client.send(post(fields=ANN))
        engine = await plane.engine.begin()
        assert code(await plane.ask(post(fields=ANN))) == (429, "rate_limit_exceeded")
        await engine.send(answer())
        await client.answer()
        # One that is refused, or fails, or whose client leaves, does not count on.
        assert (await plane.ask(post(body=b"{}", fields=ANN))).status == 400
        leaving = await plane.client()
        leaving.send(post(fields=ANN))
        await until(lambda: len(plane.gate.submissions) == 2)
        leaving.reset()
        await until(lambda: plane.gate.submissions[1].outcomes)
        client.send(post(fields=ANN))
        await (await plane.engine.begin()).send(answer())
        assert (await client.answer()).status == 200


async def test_other_keys_hold_from_the_next_request_on() -> None:
    async with data_plane(guard=Guard(api_keys=[key("ann"), key("bob")])) as plane:
        ann, bob = await plane.client(), await plane.client()
        bob.send(post(fields=BOB))
        engine = await plane.engine.begin()
        await engine.send(answer())
        await bob.answer()
        ann.send(post(body=STREAM, fields=ANN))
        await engine.request()
        await engine.send(STREAM_HEAD + event(b"1"))
        await ann.head()
        plane.services.reconfigure(guard=Guard(api_keys=[key("bob"), key("eve")]))
        # What is under way goes on.
        await engine.send(event(b"2") + b"0\r\n\r\n")
        assert event(b"2") in await ann.reader.readuntil(b"0\r\n\r\n")
        ann.send(post(fields=ANN))
        assert code(await ann.answer()) == (401, "invalid_api_key")
        bob.send(post(fields=BOB))
        await engine.request()
        await engine.send(answer())
        assert (await bob.answer()).status == 200
        assert plane.services.take_used_keys() == {"ann", "bob"}
        assert plane.services.take_used_keys() == set()


EVENTS = b"/admin/events"
ADMINS = [key("ann"), key("bob"), key("root", scopes=("admin",))]


@pytest.mark.parametrize(
    ("guard", "status", "name"),
    [
        (Guard(api_keys=[key("bob")]), 401, "invalid_api_key"),
        (Guard(api_keys=[key("ann", scopes=("inference",)), key("bob")]), 403, "forbidden"),
        (Guard(api_keys=[key("ann"), key("bob")], admin_token="t"), 403, "forbidden"),
        (Guard(api_keys=[key("ann", models=("tiny",)), key("bob")]), 403, "forbidden"),
    ],
)
async def test_who_follows_the_routers_events_is_told_that_the_key_is_good_no_longer(
    guard: Guard, status: int, name: str
) -> None:
    async with data_plane(guard=Guard(api_keys=ADMINS)) as plane:
        plane.control.answer = None
        ann, bob, late = await plane.client(), await plane.client(), await plane.client()
        ann.send(get(EVENTS, ANN))
        first = await plane.control.begin()
        await first.send(STREAM_HEAD + event(b"1"))
        await ann.head()
        bob.send(get(b"/logs?follow=1", BOB))
        second = await plane.control.begin()
        await second.send(STREAM_HEAD + event(b"1"))
        await bob.head()
        late.send(get(EVENTS, ANN))
        third = await plane.control.begin()
        plane.services.reconfigure(guard=guard)
        rest = await ann.reader.read()
        assert f'"code": "{name}"'.encode() in rest.replace(b'":"', b'": "')
        # Without the last chunk: it is cut.
        assert not rest.endswith(b"0\r\n\r\n")
        # Its answer had not begun.
        assert code(await late.answer()) == (status, name)
        await first.closed()
        await third.closed()
        # Whose key is as good as before is not disturbed.
        await second.send(event(b"2") + b"0\r\n\r\n")
        assert event(b"2") in await bob.reader.readuntil(b"0\r\n\r\n")


async def test_the_first_key_ends_what_is_followed_without_one_and_other_changes_nothing() -> None:
    async with data_plane(guard=Guard()) as plane:
        plane.control.answer = None
        client = await plane.client()
        client.send(get(EVENTS))
        side = await plane.control.begin()
        await side.send(STREAM_HEAD + event(b"1"))
        await client.head()
        plane.services.reconfigure(guard=Guard(), notify_model_swap=True)
        await side.send(event(b"2"))
        assert await client.reader.readuntil(event(b"2"))
        plane.services.reconfigure(guard=Guard(api_keys=[key("ann")]))
        assert b"invalid_api_key" in await client.reader.read()


async def test_who_follows_and_has_been_told_nothing_yet_is_told_why_it_ends() -> None:
    for head in (STREAM_HEAD, STREAM_HEAD.replace(b"transfer-encoding: chunked\r\n", b"")):
        async with data_plane(guard=Guard(api_keys=ADMINS)) as plane:
            plane.control.answer = None
            client = await plane.client()
            client.send(get(EVENTS, ANN))
            side = await plane.control.begin()
            await side.send(head)
            await client.head()
            plane.services.reconfigure(guard=Guard(api_keys=[key("bob")]))
            assert b"invalid_api_key" in await client.reader.read()


async def test_an_order_that_revokes_its_own_key_is_answered() -> None:
    async with data_plane(guard=Guard(api_keys=ADMINS)) as plane:
        plane.control.answer = None
        client = await plane.client()
        client.send(b"DELETE /admin/keys/ann HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % ANN)
        side = await plane.control.begin()
        plane.services.reconfigure(guard=Guard(api_keys=[key("bob")]))
        await side.send(answer(b"{}"))
        assert (await client.answer()).status == 200


async def test_a_request_whose_body_is_still_to_come_needs_its_key_until_then() -> None:
    async with data_plane(answer(), guard=Guard(api_keys=ADMINS)) as plane:
        requests = (
            b"GET /admin/events HTTP/1.1\r\nhost: localhost\r\n%bcontent-length: 9\r\n\r\n{" % ANN,
            post(fields=ANN)[:-5],
            post(fields=BOB)[:-5],
        )
        clients = [await plane.client() for _ in requests]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        await until(lambda: sum(one.leans_on_key for one in plane.connections) == len(requests))
        plane.services.reconfigure(guard=Guard(api_keys=[key("bob")]))
        for client in clients[:2]:
            assert code(await client.answer()) == (401, "invalid_api_key")
        clients[2].send(post(fields=BOB)[-5:])
        assert (await clients[2].answer()).status == 200
        assert plane.control.requests == []


async def test_other_limits_hold_at_once_and_what_is_under_way_counts() -> None:
    async with data_plane(guard=Guard(api_keys=[key("ann")])) as plane:
        client = await plane.client()
        client.send(post(fields=ANN))
        engine = await plane.engine.begin()
        limited = Guard(api_keys=[key("ann", max_in_flight=1, requests_per_minute=60)])
        plane.services.reconfigure(guard=limited)
        second = await plane.client()
        second.send(post(fields=ANN))
        other = await plane.engine.begin()
        plane.services.reconfigure(guard=limited)
        assert code(await plane.ask(post(fields=ANN))) == (429, "rate_limit_exceeded")
        for side, one in ((engine, client), (other, second)):
            await side.send(answer())
            await one.answer()
        plane.services.reconfigure(guard=Guard())
        second.send(post())
        await other.request()
        await other.send(answer())
        assert (await second.answer()).status == 200
