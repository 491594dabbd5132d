"""No callback of the data plane holds the event loop for long, whatever is sent to it."""

import asyncio

import pytest

from llama_router.proxy.chunked import encode_chunk
from llama_router.proxy.limits import MAX_HEAD_BYTES, MAX_HEADER_COUNT
from tests.support.data_plane import STREAM, DataPlane, data_plane, get, post
from tests.support.loop_guard import REFERENCE_S, every_time, loop_guard, reference_work
from tests.support.scripted_engine import STREAM_HEAD, answer, event

# uvloop's callbacks do not go through asyncio's handles.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

BIG_JSON = b'{"model": "tiny", "messages": [%b]}' % b",".join(
    [b'{"role": "user", "content": "a \\"word\\" or \xc3\xa4\\n"}'] * 18_000
)
MANY_MEMBERS = b'{%b,"model": "tiny"}' % b",".join(b'"%x":1' % number for number in range(90_000))
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\ny\r\n' * 15_000
    + b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
)
FORM_TYPE = b"content-type: multipart/form-data; boundary=b\r\n"
CHUNKED = b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
MANY_TINY_CHUNKS = (
    b"".join(encode_chunk(bytes([one])) for one in b'{"model":"tiny","x":"')
    + encode_chunk(b"y") * 60_000
    + encode_chunk(b'"}')
)
HEAD_OF_FIELDS = b"".join(b"x-%d: %b\r\n" % (n, b"y" * 480) for n in range(MAX_HEADER_COUNT - 4))

LOADS: dict[str, bytes] = {
    "small requests": post() * 50,
    # More than one read can hold.
    "a flood": post() * 2900,
    "a flood of errors": post(body=b'{"model":"nobody"}') * 3000,
    "a megabyte of JSON": post(body=BIG_JSON),
    "many members": post(body=MANY_MEMBERS),
    "a form": post(b"/v1/audio/transcriptions", FORM, FORM_TYPE),
    "tiny chunks": CHUNKED + MANY_TINY_CHUNKS + b"0\r\n\r\n",
    "large chunks": CHUNKED + encode_chunk(BIG_JSON) + b"0\r\n\r\n",
    "a huge head": get(b"/v1/models", HEAD_OF_FIELDS) * 20,
}
COUNTS = {"small requests": 50, "a flood": 2900, "a flood of errors": 3000, "a huge head": 20}


async def run(plane: DataPlane, load: bytes, count: int) -> None:
    client = await plane.client()
    client.send(load)
    for _ in range(count):
        assert (await client.answer()).status in (200, 404)
    await client.close()


@pytest.mark.parametrize("name", LOADS)
@every_time
async def test_what_clients_send_does_not_hold_the_loop(name: str) -> None:
    load, count = LOADS[name], COUNTS.get(name, 1)
    assert len(load) > 4000
    few = min(count, 50)
    with loop_guard() as guard:
        async with data_plane(answer(b"[]")) as plane:
            # The first time fills caches, starts threads and the inspector.
            await run(plane, load[: len(load) // count * few], few)
            guard.forget()
            await run(plane, load, count)
        guard.check()


@every_time
async def test_a_huge_head_in_pieces_does_not_hold_the_loop() -> None:
    async with data_plane() as plane:
        with loop_guard() as guard:
            guard.forget()
            client = await plane.client()
            load = b"GET / HTTP/1.1\r\nhost: localhost\r\n" + HEAD_OF_FIELDS * 2
            for start in range(0, MAX_HEAD_BYTES + 1, 500):
                client.send(load[start : start + 500])
                await asyncio.sleep(0)
            assert (await client.answer()).status == 431
        guard.check()


async def relay(plane: DataPlane, chunk: bytes, count: int = 40) -> None:
    client = await plane.client()
    client.send(post(body=STREAM))
    engine = await plane.engine.begin()
    await engine.send(STREAM_HEAD)
    for _ in range(count):
        await engine.send(chunk)
    await engine.send(b"0\r\n\r\n")
    assert (await client.answer()).status == 200
    await client.close()
    engine.close()


@every_time
async def test_streams_do_not_hold_the_loop() -> None:
    with loop_guard() as guard:
        async with data_plane() as plane:
            await relay(plane, event(b"x" * 200))
            guard.forget()
            for chunk in (event(b"x" * 200) * 20, event(b"x" * 60_000), event(b"x" * 30) * 500):
                await relay(plane, chunk)
            await relay(plane, b"1\r\nx\r\n" * 11_000, 2)
        guard.check()


@every_time
async def test_a_release_of_a_large_body_does_not_hold_the_loop() -> None:
    body = STREAM[:-1] + b" " * (50 * 2**20) + b"}"
    with loop_guard() as guard:
        async with data_plane(answer(b"[]")) as plane:
            await plane.ask(post(body=b'{"model":"tiny"}' + b" " * 2_000_000))
            guard.forget()
            assert (await plane.ask(post(body=body))).status == 200
        guard.check()


@every_time
async def test_a_sweep_of_many_connections_does_not_hold_the_loop() -> None:
    with loop_guard() as guard:
        async with data_plane() as plane:
            for _ in range(300):
                await plane.client()
            plane.server._sweep(0.0)
            await asyncio.sleep(0)
            guard.forget()
            plane.server._sweep(0.0)
            for _ in range(3):
                await asyncio.sleep(0)
            guard.is_measuring = False
        guard.check()


async def test_the_guard_finds_what_holds_the_loop() -> None:
    def hold() -> None:
        for _ in range(round(0.005 / REFERENCE_S)):
            reference_work()

    with loop_guard() as guard:
        guard.forget()
        held = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(hold)
        asyncio.get_running_loop().call_soon(held.set_result, None)
        await held
    with pytest.raises(AssertionError, match=r"ms: .*hold"):
        guard.check()
