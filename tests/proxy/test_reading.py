"""Whose filters, patience and notices a request gets, by the model that it names."""

import pytest

from llama_router.proxy.errors import ModelNotLoadedError, QueueFullError
from llama_router.proxy.gate import Ended, Target, Timeouts
from llama_router.proxy.limits import MAX_PROMPT_BYTES
from tests.support.data_plane import STREAM, DataPlane, data_plane, get, post, until
from tests.support.scripted_engine import answer

pytestmark = pytest.mark.asyncio

IGNORED = [r"^/favicon\.ico$", r"\.js$"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get(b"/upstream/tiny/favicon.ico"), 409),
        (get(b"/upstream/tiny/favicon%2eico?autoload=1"), 409),
        (get(b"/upstream/tiny/a/b.js"), 409),
        (post(b"/upstream/tiny/a/b.js"), 409),
        (get(b"/upstream/tiny/a/favicon.ico"), 503),
        (get(b"/upstream/tiny/x.js/y"), 503),
        (get(b"/props?model=tiny"), 503),
    ],
)
async def test_some_paths_below_upstream_never_load_their_model(
    request_: bytes, status: int
) -> None:
    async with data_plane(answer(), upstream_ignore_paths=IGNORED) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(request_)
        submission = await plane.gate.arrived()
        assert not submission.may_load
        plane.gate.reject(submission, ModelNotLoadedError("it is not loaded"))
        found = await client.answer()
        assert found.status == status
        assert b"model_not_loaded" in found.body
        assert found.fields[b"x-should-retry"] == b"false"
        # Loaded, it answers as ever.
        client.send(request_)
        plane.gate.dispatch(await plane.gate.arrived())
        assert (await client.answer()).status == 200


async def test_other_refusals_of_such_paths_stay_what_they_are() -> None:
    async with data_plane(answer(), upstream_ignore_paths=IGNORED) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(get(b"/upstream/tiny/favicon.ico"))
        plane.gate.reject(await plane.gate.arrived(), QueueFullError("full"))
        assert (await client.answer()).status == 429


@pytest.mark.parametrize(
    ("router", "own", "expected"),
    [(True, None, True), (True, False, False), (False, True, True), (False, None, False)],
)
async def test_notices_are_a_models_own_affair(
    *, router: bool, own: bool | None, expected: bool
) -> None:
    async with data_plane(answer(), notify_model_swap=router) as plane:
        plane.gate.targets["tiny"] = Target("tiny", notify=own)
        await plane.ask(post(body=STREAM))
        assert plane.gate.submissions[-1].wants_notices is expected


@pytest.mark.parametrize(
    ("timeouts", "first_byte_s", "read_s"),
    [
        (None, 20, 30),
        (Timeouts(), 20, 30),
        (Timeouts(read_s=5.0), 20, 5),
        (Timeouts(first_byte_s=7.0), 7, 30),
        (Timeouts(5.0, 7.0), 7, 5),
    ],
)
async def test_patience_is_a_models_own(
    timeouts: Timeouts | None, first_byte_s: int, read_s: int
) -> None:
    head = answer(b"12345")[:-3]
    async with data_plane(read_timeout_s=30.0, first_byte_timeout_s=20.0) as plane:
        plane.gate.targets["tiny"] = Target("tiny", timeouts=timeouts)
        for beginning, patience_s in ((b"", first_byte_s), (head, read_s)):
            client = await plane.client()
            client.send(post())
            engine = await plane.engine.begin()
            if beginning:
                await engine.send(beginning)
                await client.head()
            count = len(plane.gate.submissions)
            plane.sweep(patience_s + 1)
            assert not plane.gate.submissions[-1].outcomes
            plane.sweep(1)
            assert plane.gate.submissions[-1].outcomes == ["finished"]
            assert len(plane.gate.submissions) == count
            await client.close()
            await until(lambda: not plane.services.connections)


async def test_no_limit_of_a_model_is_none_though_the_router_has_one() -> None:
    async with data_plane(first_byte_timeout_s=20.0) as plane:
        plane.gate.targets["tiny"] = Target("tiny", timeouts=Timeouts(first_byte_s=0.0))
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        plane.sweep(3600)
        await engine.send(answer())
        assert (await client.answer()).status == 200


# --- prompts


async def ended(plane: DataPlane, request: bytes) -> Ended:
    count = len(plane.gate.history)
    await plane.ask(request)
    await until(lambda: len(plane.gate.history) > count)
    return plane.gate.history[-1]


def padded(size: int) -> bytes:
    return b'{"model":"tiny","x":"%b"}' % (b"y" * size)


async def test_prompts_are_kept_only_when_asked_for() -> None:
    async with data_plane(answer()) as plane:
        assert (await ended(plane, post())).prompt is None
        plane.services.reconfigure(guard=plane.services.guard, history_prompts=True)
        for size in (10, 300_000, 3 * 2**20):
            kept = (await ended(plane, post(body=padded(size)))).prompt
            assert kept == padded(size)[:MAX_PROMPT_BYTES].decode()
            assert plane.engine.requests[-1].body == padded(size)
        form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
        fields = b"content-type: multipart/form-data; boundary=b\r\n"
        assert (await ended(plane, post(body=form, fields=fields))).prompt is None


async def test_a_prompt_is_text_even_if_it_is_cut_within_a_character() -> None:
    body = '{"model":"tiny","x":"{}"}'.replace("{}", "\u20ac" * MAX_PROMPT_BYTES).encode()
    async with data_plane(answer(), history_prompts=True) as plane:
        kept = (await ended(plane, post(body=body))).prompt
        assert kept is not None
        assert kept.rstrip("\ufffd").endswith("\u20ac")
