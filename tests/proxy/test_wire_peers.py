"""Models on other machines, over the wire: what they get to see, and what of them is passed on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llama_router.proxy.gate import Target
from llama_router.proxy.guard import Guard
from llama_router.proxy.keys import ApiKey, digest_of
from llama_router.runtime.peers import Peers
from tests.support.certificate import server_context
from tests.support.data_plane import DataPlane, data_plane, get, post, until
from tests.support.peers import config_of, peering
from tests.support.raw_client import Answer, RawClient
from tests.support.scripted_engine import STREAM_HEAD, EngineSide, ScriptedEngine, answer, event

pytestmark = pytest.mark.asyncio

BODY = b'{"model":"big","stream":true}'
DEAD = {"url": "http://127.0.0.1:9", "connection_timeout_s": 5}


def code(found: Answer) -> tuple[int, str]:
    return found.status, json.loads(found.body)["error"]["code"]


def near(remote: ScriptedEngine, path: str = "", **rest: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"url": f"http://127.0.0.1:{remote.port}{path}", **rest}


@asynccontextmanager
async def peered(
    script: bytes | None = None,
    **rest: Any,  # noqa: ANN401 - settings of the peer
) -> AsyncIterator[tuple[ScriptedEngine, DataPlane, Peers]]:
    """Give a server that is the peer `far` and has the model `big`, and who relays to it."""
    async with (
        ScriptedEngine(script) as remote,
        peering("big", peer=near(remote, **rest)) as (plane, peers),
    ):
        yield remote, plane, peers


async def streaming(plane: DataPlane, remote: ScriptedEngine) -> tuple[RawClient, EngineSide]:
    """Give a client and the peer's side of its connection, in the middle of a stream."""
    client = await plane.client()
    client.send(post(body=BODY))
    side = await remote.begin()
    await side.send(STREAM_HEAD + event(b"1"))
    await client.head()
    return client, side


async def test_a_peer_sees_its_own_key_and_none_of_the_clients() -> None:
    fields = (
        b"authorization: Bearer ours\r\nx-api-key: theirs\r\napi-key: azure\r\ncookie: c=1\r\n"
        b"origin: http://localhost\r\nreferer: http://localhost/x\r\nsec-fetch-mode: cors\r\n"
        b"x-router-class: batch\r\nx-forwarded-for: 10.0.0.1\r\naccept-encoding: gzip\r\n"
        b"anthropic-version: 2023-06-01\r\nuser-agent: sdk\r\n"
    )
    async with (
        ScriptedEngine(answer(b"[]")) as remote,
        peering("big", peer=near(remote, "/api/v1/", api_key="secret")) as (plane, _),
    ):
        found = await plane.ask(post(b"/v1/chat/completions?a=b", BODY, fields))
        assert (found.status, found.body) == (200, b"[]")
        seen = remote.requests[-1]
        assert seen.line == b"POST /api/v1/chat/completions?a=b HTTP/1.1"
        assert seen.body == BODY
        passed = seen.fields
        assert passed.pop(b"via").startswith(b"1.1 llama-router-")
        assert passed == {
            b"host": b"127.0.0.1:%d" % remote.port,
            b"authorization": b"Bearer secret",
            b"x-api-key": b"secret",
            b"anthropic-version": b"2023-06-01",
            b"user-agent": b"sdk",
            b"content-length": b"%d" % len(BODY),
        }


async def test_a_peer_without_a_key_sees_none() -> None:
    async with peered(answer()) as (remote, plane, _):
        await plane.ask(post(body=BODY, fields=b"authorization: Bearer ours\r\n"))
        assert b"authorization" not in remote.requests[-1].fields
        assert b"x-api-key" not in remote.requests[-1].fields


async def test_names_and_filters_are_the_peers() -> None:
    filters = {
        "strip_params": ["seed"],
        "set_params": {"n": 1},
        "set_params_by_id": {"big": {"n": 2}},
    }
    async with (
        ScriptedEngine(answer()) as remote,
        peering("big", "small", peer=near(remote, filters=filters)) as (plane, peers),
    ):
        target = peers.target("far/big")
        assert target is not None
        plane.gate.targets["far/big"] = target
        for sent, got in (
            (b'{"model":"big","seed":1}', b'{"model":"big","n":2}'),
            (b'{"model":"far/big"}', b'{"model":"big","n":2}'),
            (b'{"n":0,"model":"small"}', b'{"n":1,"model":"small"}'),
        ):
            assert (await plane.ask(post(body=sent))).status == 200
            assert remote.requests[-1].body == got
        large = b'{"model":"far/big","x":"%b"}' % (b"y" * 3 * 2**20)
        remote.requests.clear()
        found = await plane.ask(post(body=large))
        assert found.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"big","Model":"other"}',
        b'{"model":"big","x":1,"x":2}',
        b'{"model":"big","\\u0078":1}',
    ],
)
async def test_no_body_leaves_that_could_be_read_in_two_ways(body: bytes) -> None:
    async with peered(answer()) as (remote, plane, _):
        assert code(await plane.ask(post(body=body))) == (400, "invalid_request")
        assert remote.requests == []


async def test_a_peers_model_is_asked_by_requests_that_name_it_in_their_body_only() -> None:
    async with peered(answer()) as (remote, plane, _):
        plane.gate.models["big"] = "big"
        found = await plane.ask(get(b"/props?model=big"))
        assert code(found) == (404, "endpoint_not_allowed")
        assert remote.requests == []


async def test_it_can_be_encrypted() -> None:
    """A stream over TLS, on connections that are used again."""
    async with ScriptedEngine(tls=server_context()) as remote:
        peer = {"url": f"https://localhost:{remote.port}", "api_key": "secret"}
        async with peering("big", peer=peer) as (plane, _):
            client = await plane.client()
            side = None
            for _ in range(3):
                client.send(post(body=BODY))
                if side is None:
                    side = await remote.begin()
                    assert remote.requests[-1].fields[b"host"] == b"localhost:%d" % remote.port
                else:
                    await side.request()
                await side.send(STREAM_HEAD + event(b"1"))
                assert b"text/event-stream" in await client.head()
                chunk = event(b"x" * 100_000)
                await side.send(chunk + b"0\r\n\r\n")
                expected = event(b"1") + chunk + b"0\r\n\r\n"
                assert await client.reader.readexactly(len(expected)) == expected
            await until(lambda: len(plane.gate.history) == 3)
            assert [one.model for one in plane.gate.history] == ["big"] * 3
            assert {one.end for one in plane.gate.history} == {"-.-"}
            assert remote.connection_count == 1


async def test_a_peer_that_cannot_prove_who_it_is_gets_nothing() -> None:
    async with ScriptedEngine(answer(), tls=server_context()) as remote:
        peer = {"url": f"https://127.0.0.1:{remote.port}", "api_key": "secret"}
        async with peering("big", peer=peer) as (plane, _):
            found = await plane.ask(post(body=BODY))
            assert code(found) == (502, "peer_unavailable")
            assert b"peer 'far'" in found.body
            assert b"certificate verify failed" in found.body
            assert remote.requests == []


async def test_a_peer_that_is_down_is_said_so_at_once() -> None:
    async with peering("big", peer=DEAD) as (plane, _):
        found = await plane.ask(post(body=BODY))
        assert code(found) == (502, "peer_unavailable")
        assert b"peer 'far' gave no answer: no connection" in found.body
        assert found.fields[b"x-should-retry"] == b"false"
        assert b"/logs/" not in found.body
        assert plane.gate.submissions == []


async def test_what_was_sent_is_not_sent_again_but_on_a_connection_that_was_idle() -> None:
    async with peered() as (remote, plane, _):
        client = await plane.client()
        client.send(post(body=BODY))
        side = await remote.begin()
        side.close()
        assert code(await client.answer()) == (502, "peer_unavailable")
        client.send(post(body=BODY))
        side = await remote.begin()
        await side.send(answer())
        assert (await client.answer()).status == 200
        # It closes its idle connection just as that is taken up again.
        client.send(post(body=BODY))
        await side.request()
        side.close()
        await (await remote.begin()).send(answer(b"[2]"))
        assert (await client.answer()).body == b"[2]"


async def test_a_peer_that_dies_in_its_stream_is_told_in_an_event() -> None:
    async with peered() as (remote, plane, _):
        client, side = await streaming(plane, remote)
        side.close()
        rest = await client.rest()
        assert b"peer_unavailable" in rest
        assert b"peer 'far' went away while it was answering" in rest


@pytest.mark.parametrize(
    "status", [b"301 Moved", b"302 Found", b"307 T", b"308 P", b"401 U", b"407 P"]
)
async def test_redirects_and_refusals_of_the_key_are_not_passed_on(status: bytes) -> None:
    fields = b"location: http://evil.example/\r\nwww-authenticate: Bearer\r\n"
    quoting = answer(b'{"error":"wrong key: secret"}', status=status, fields=fields)
    async with peered(quoting, api_key="secret") as (_, plane, _):
        for _ in range(2):
            found = await plane.ask(post(body=BODY))
            assert code(found) == (502, "bad_upstream")
            assert b"secret" not in found.head + found.body
            assert b"location" not in found.fields
            assert b"peer 'far'" in found.body


async def test_other_errors_are_the_peers_own() -> None:
    fields = b"retry-after: 7\r\nset-cookie: a=b\r\nalt-svc: h2\r\nstrict-transport-security: x\r\n"
    refusal = answer(b'{"error":"slow down"}', status=b"429 Too Many", fields=fields)
    async with peered(refusal) as (_, plane, _):
        found = await plane.ask(post(body=BODY))
        assert (found.status, found.body) == (429, b'{"error":"slow down"}')
        assert found.fields[b"retry-after"] == b"7"
        assert not {b"set-cookie", b"alt-svc", b"strict-transport-security"} & found.fields.keys()


async def test_a_client_that_leaves_ends_the_peers_work() -> None:
    async with peered() as (remote, plane, peers):
        client = await plane.client()
        client.send(post(body=BODY))
        side = await remote.begin()
        assert peers.in_flight_count == 1
        standing = peers.standing("big")
        assert standing is not None
        assert standing.request_count == 1
        client.reset()
        await side.closed()
        await until(lambda: peers.in_flight_count == 0)


async def test_patience_is_the_peers_own() -> None:
    async with ScriptedEngine() as remote:
        peer = near(remote, first_byte_timeout_s=5, read_timeout_s=9)
        async with peering("big", peer=peer) as (plane, _):
            client = await plane.client()
            client.send(post(body=BODY))
            await remote.begin()
            plane.sweep(7)
            found = await client.answer()
            assert code(found) == (504, "engine_timeout")
            assert b"peer 'far' has been silent for" in found.body


async def test_a_stream_of_a_peer_gets_no_notices_and_keys_are_held_to_their_models() -> None:
    guard = Guard(api_keys=[ApiKey(digest=digest_of("k"), name="ann", models=("far/*",))])
    async with (
        ScriptedEngine(answer()) as remote,
        peering("big", peer=near(remote), guard=guard, notify_model_swap=True) as (plane, peers),
    ):
        key = b"x-api-key: k\r\n"
        assert code(await plane.ask(post(body=BODY, fields=key))) == (404, "model_not_found")
        plane.gate.targets["far/big"] = peers.target("far/big") or Target("")
        body = b'{"model":"far/big"}'
        assert (await plane.ask(post(body=body, fields=key))).status == 200
        assert plane.gate.history[-1].model == "far/big"


async def test_a_request_that_comes_back_through_peers_is_ended() -> None:
    async with data_plane() as plane:
        peers = Peers()
        itself = {"url": f"http://127.0.0.1:{plane.port}", "models": ["big"]}
        peers.follow(config_of(far=itself))
        target = peers.target("big")
        assert target is not None
        plane.gate.targets["big"] = target
        client = await plane.client()
        client.send(post(body=b'{"model":"big"}'))
        assert code(await client.answer()) == (508, "peer_loop")
        await until(lambda: peers.in_flight_count == 0)
        assert [one.end for one in plane.gate.history] == ["-.-"]
        await peers.close()


async def test_what_other_proxies_say_of_themselves_is_passed_on() -> None:
    async with peered(answer()) as (remote, plane, _peers):
        await plane.ask(post(body=BODY, fields=b"via: 1.1 llama-router-0, 1.0 fred\r\n"))
        assert remote.requests[-1].head.count(b"\r\nvia: 1.1 llama-router-") == 2


async def test_a_reload_leaves_what_is_under_way_alone() -> None:
    async with peered() as (remote, plane, peers):
        client, side = await streaming(plane, remote)
        peers.follow(config_of())
        assert peers.target("big") is None
        assert peers.in_flight_count == 1
        await side.send(event(b"2") + b"0\r\n\r\n")
        assert event(b"2") in await client.reader.readuntil(b"0\r\n\r\n")
        # Its connection is nobody's any more.
        assert await side.closed() == b""


async def test_at_the_end_answers_are_waited_for_and_cut_at_the_deadline() -> None:
    async with peered() as (remote, plane, peers):
        client, _ = await streaming(plane, remote)
        await peers.drain(0.0)
        rest = await client.rest()
        assert b"shutting_down" in rest
        assert code(await plane.ask(post(body=BODY))) == (503, "shutting_down")
        await peers.drain(5.0)


async def test_a_plane_without_peers_is_as_ever() -> None:
    async with data_plane(answer()) as plane:
        assert (await plane.ask(post())).status == 200
