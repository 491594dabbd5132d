"""Bodies with filters applied, over the wire: whatever their size, and whoever leaves meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llama_router.proxy.body import Body, BodyBudget
from llama_router.proxy.errors import BadRequestError, TooManyBodiesError
from llama_router.proxy.gate import Target
from llama_router.proxy.inspector import BodyInspector
from llama_router.proxy.limits import SPOOL_THRESHOLD_BYTES
from llama_router.proxy.peek import Peek
from llama_router.proxy.rewrite import Rewrite, make_rewrite
from llama_router.proxy.rewriting import rewrite_aside, rewrite_now
from tests.support.data_plane import DataPlane, data_plane, post, until
from tests.support.loop_guard import every_time, loop_guard
from tests.support.scripted_engine import EngineRequest, answer

pytestmark = pytest.mark.asyncio

REWRITE = make_rewrite(model="inner", strip=["temperature"], values={"top_k": 40})
SIZES = [100, 20_000, 300_000, SPOOL_THRESHOLD_BYTES + 1, 3 * 2**20]
MANY_PARTS = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
FORM_TYPE = b"content-type: multipart/form-data; boundary=b\r\n"


@asynccontextmanager
async def filtering(rewrite: Rewrite = REWRITE, **settings: Any) -> AsyncIterator[DataPlane]:  # noqa: ANN401
    async with data_plane(answer(b"[]"), **settings) as plane:
        plane.gate.targets["tiny"] = Target("tiny", rewrite=rewrite)
        yield plane
        await until(lambda: plane.services.budget.used_on_disk_bytes == 0)


def padded(size: int, rest: str = "") -> bytes:
    return f'{{"temperature": 1, "model":"tiny", "x":"{"y" * size}"{rest}}}'.encode()


def form(size: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    return (
        part % (b"file", b'; filename="a"', b"\r\n-" * (size // 3))
        + part % (b"temperature", b"", b"1")
        + part % (b"model", b"", b"tiny")
        + b"--b--\r\n"
    )


async def got(plane: DataPlane, request: bytes) -> EngineRequest:
    found = await plane.ask(request)
    assert (found.status, found.body) == (200, b"[]"), found
    return plane.engine.requests[-1]


@pytest.mark.parametrize("size", SIZES)
async def test_json_of_any_size_is_rewritten(size: int) -> None:
    async with filtering() as plane:
        request = await got(plane, post(body=padded(size)))
        expected = '{"model":"inner", "x":"%s","top_k":40}' % ("y" * size)
        assert request.body == expected.encode()
        assert plane.gate.submissions[-1].model == "tiny"


@pytest.mark.parametrize("size", SIZES)
async def test_a_form_of_any_size_is_framed_anew(size: int) -> None:
    async with filtering() as plane:
        fields = b"x-content-type: multipart/form-data; boundary=b\r\n" + FORM_TYPE
        request = await got(plane, post(b"/v1/audio/transcriptions", form(size), fields))
        new_type = request.fields[b"content-type"]
        assert request.fields[b"x-content-type"] == b"multipart/form-data; boundary=b"
        boundary = new_type.removeprefix(b"multipart/form-data; boundary=")
        parts = request.body.split(b"--" + boundary)
        assert len(parts) == 5
        assert parts[1].endswith(
            b'name="file"; filename="a"\r\n\r\n' + b"\r\n-" * (size // 3) + b"\r\n"
        )
        assert parts[2].endswith(b'name="model"\r\n\r\ninner\r\n')
        assert parts[3].endswith(b'name="top_k"\r\n\r\n40\r\n')
        assert parts[4] == b"--\r\n"


async def test_many_members_are_rewritten_aside() -> None:
    members = {f"k{n}": n for n in range(5000)}
    async with filtering() as plane:
        request = await got(plane, post(body=json.dumps({"model": "tiny", **members}).encode()))
        assert json.loads(request.body) == {"model": "inner", **members, "top_k": 40}


async def test_large_filters_go_along() -> None:
    values = {f"key {n}": "v" * 3000 for n in range(20)}
    rewrite = make_rewrite(values=values)
    async with filtering(rewrite) as plane:
        for size in (100, 300_000, 2 * 2**20):
            body = json.loads((await got(plane, post(body=padded(size)))).body)
            assert body["key 19"] == "v" * 3000


@pytest.mark.parametrize("size", [100, 300_000, 2 * 2**20])
async def test_a_stream_that_a_filter_makes_gets_notices(size: int) -> None:
    rewrite = make_rewrite(values={"stream": True})
    async with filtering(rewrite, notify_model_swap=True) as plane:
        await got(plane, post(body=padded(size)))
        assert plane.gate.submissions[-1].wants_notices
        plane.gate.targets["tiny"] = Target("tiny", rewrite=make_rewrite(strip=["stream"]))
        await got(plane, post(body=padded(size, rest=',"stream":true')))
        assert not plane.gate.submissions[-1].wants_notices


@pytest.mark.parametrize("size", [100, 300_000, 2 * 2**20])
async def test_keys_given_twice_are_refused_when_there_are_filters(size: int) -> None:
    body = padded(size, rest=',"temperature":2')
    async with filtering() as plane:
        found = await plane.ask(post(body=body))
        assert found.status == 400
        assert b"given twice" in found.body
        plane.gate.targets["tiny"] = Target("tiny")
        assert (await got(plane, post(body=body))).body == body


async def test_a_body_without_a_body_stays_one() -> None:
    async with filtering() as plane:
        plane.gate.root = "tiny"
        assert (await got(plane, post(b"/props", b""))).body == b""
        # One without a model gets the engine's name for it.
        assert (await got(plane, post(b"/tokenize", b'{"content":"x"}'))).body == (
            b'{"content":"x","top_k":40,"model":"inner"}'
        )


async def test_below_upstream_nothing_is_touched() -> None:
    async with filtering() as plane:
        request = await got(plane, post(b"/upstream/tiny/v1/chat/completions", padded(9)))
        assert request.body == padded(9)


async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind() -> None:
    async with filtering() as plane:
        await got(plane, post(body=padded(2 * 2**20)))
        for turn_count in range(0, 60, 3):
            client = await plane.client()
            client.send(post(body=padded(2 * 2**20)))
            await until(lambda: plane.services.budget.used_on_disk_bytes)
            for _ in range(turn_count):
                await asyncio.sleep(0)
            client.reset()
            await until(lambda: not plane.services.connections)
        # The child has survived it, or there is another.
        await got(plane, post(body=padded(2 * 2**20)))


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (padded(250_000), b""),
        (json.dumps({"model": "tiny", **{f"k{n}": n for n in range(250)}}).encode(), b""),
        (b'{"model":"tiny"%b}' % b"".join(b',"%d":0' % n for n in range(1900)), b""),
        (b'{"model":"tiny",%b"x":1}' % (b" " * 200_000), b""),
        (form(7000), FORM_TYPE),
        (MANY_PARTS * 30 + form(9), FORM_TYPE),
        (MANY_PARTS * 130 + form(9), FORM_TYPE),
        (form(2000), FORM_TYPE),
        (form(900_000), FORM_TYPE),
        (padded(8 * 2**20), b""),
    ],
)
@every_time
async def test_no_rewriting_holds_the_loop(body: bytes, fields: bytes) -> None:
    with loop_guard() as guard:
        async with filtering() as plane:
            # The first time fills caches, starts threads and the inspector.
            await got(plane, post(body=body, fields=fields))
            guard.forget()
            for _ in range(3):
                await got(plane, post(body=body, fields=fields))
        guard.check()


# --- without the wire


def held(data: bytes, budget: BodyBudget) -> Body:
    budget.take(len(data))
    return Body(budget, data, None, len(data))


async def test_a_full_budget_refuses_and_keeps_the_old_body() -> None:
    budget = BodyBudget(limit_bytes=100)
    body = held(padded(30), budget)
    peek = Peek("tiny", stream=False)
    before = budget.used_bytes
    with pytest.raises(TooManyBodiesError):
        rewrite_now(body, None, REWRITE, peek, budget)
    assert budget.used_bytes == before
    body.release()
    assert budget.used_bytes == 0


async def test_a_body_that_grows_beyond_what_filters_can_make_of_it_is_refused() -> None:
    budget, inspector = BodyBudget(), BodyInspector()
    data = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1025 + b"--b--\r\n"
    body = held(data, budget)
    try:
        with pytest.raises(BadRequestError, match="parts"):
            await rewrite_aside(
                body,
                b"multipart/form-data; boundary=b",
                REWRITE,
                Peek(None, stream=False),
                budget,
                inspector,
            )
    finally:
        await inspector.close()
    assert budget.used_bytes == len(data)
    body.release()
