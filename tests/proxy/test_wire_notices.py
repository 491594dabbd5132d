import asyncio
import json
from typing import Any

import pytest

from llama_router.proxy.errors import LoadTimeoutError, ModelLoadFailedError
from llama_router.proxy.gate import NoticeKind
from llama_router.proxy.limits import HEARTBEAT_S, MAX_ERROR_BODY_BYTES
from tests.support.data_plane import STREAM, DataPlane, data_plane, post, until
from tests.support.fake_gate import Submission
from tests.support.raw_client import RawClient
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio


def objects(body: bytes) -> list[Any]:
    """What the events of a whole stream carry; comments are left out."""
    events = [text for text in body.split(b"\n\n") if text and not text.startswith(b":")]
    assert all(one.startswith(b"data: ") for one in events), body
    return [json.loads(one[6:]) for one in events]


async def waiting(plane: DataPlane, *, version: bytes = b"1.1") -> tuple[RawClient, Submission]:
    """A client that has been told that its model is being loaded."""
    plane.gate.holds = True
    client = await plane.client()
    client.send(post(body=STREAM, version=version))
    submission = await plane.gate.arrived()
    assert submission.wants_notices
    plane.gate.notify(submission, NoticeKind.UNLOADING)
    plane.gate.notify(submission, NoticeKind.LOADING, 0.5)
    return client, submission


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("form", ["chunked", "counted", "closing"])
async def test_notices_come_before_the_stream_of_the_engine(version: bytes, form: str) -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane, version=version)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        text = b'data: {"n":1}\n\n'
        kind = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        if form == "chunked":
            await engine.send(STREAM_HEAD + event(b'{"n":1}') + b"0\r\n\r\n")
        elif form == "counted":
            await engine.send(kind + b"content-length: %d\r\n\r\n" % len(text) + text)
        else:
            await engine.send(kind + b"\r\n" + text)
            engine.close()
        found = await client.answer()
        assert found.fields[b"content-type"] == b"text/event-stream"
        assert (found.status, found.head.count(b"HTTP/")) == (200, 1)
        first, second, last = objects(found.body)
        for notice, word in ((first, "Unloading"), (second, "50 %")):
            assert notice["object"] == "chat.completion.chunk"
            assert notice["model"] == "tiny"
            assert notice["id"] == first["id"]
            [choice] = notice["choices"]
            assert word in choice["delta"]["reasoning_content"]
            assert choice["finish_reason"] is None
        assert last == {"n": 1}
        assert submission.outcome == "finished"


async def test_the_official_client_reads_notices_as_chunks() -> None:
    chunk = pytest.importorskip("openai.types.chat").ChatCompletionChunk
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.reject(submission, ModelLoadFailedError("it crashed"))
        notices = objects((await client.answer()).body)[:-1]
        assert len(notices) == 2
        for notice in notices:
            assert chunk.model_validate(notice, strict=True).choices[0].index == 0


async def test_the_official_client_raises_on_the_error_event() -> None:
    openai = pytest.importorskip("openai")
    async with data_plane(notify_model_swap=True) as plane:
        plane.gate.holds = True
        texts: list[str] = []

        def ask() -> None:
            url = f"http://127.0.0.1:{plane.port}/v1"
            with openai.OpenAI(api_key="k", base_url=url, max_retries=0) as sdk:
                stream = sdk.chat.completions.create(model="tiny", messages=[], stream=True)
                texts.extend(chunk.choices[0].delta.reasoning_content for chunk in stream)

        asking = asyncio.create_task(asyncio.to_thread(ask))
        submission = await plane.gate.arrived()
        plane.gate.notify(submission, NoticeKind.LOADING)
        plane.gate.reject(submission, ModelLoadFailedError("it crashed"))
        with pytest.raises(openai.APIError, match="it crashed"):
            await asking


async def test_a_failed_load_after_notices_is_one_event_and_a_clean_end() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.reject(submission, LoadTimeoutError("too slow"))
        last = objects((await client.answer()).body)[-1]
        assert last["error"]["code"] == "load_timeout"
        # The connection goes on.
        client.send(post())
        second = await plane.gate.arrived()
        plane.gate.dispatch(second)
        engine = await plane.engine.begin()
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (answer(b'{"error":{"message":"too long","code":400}}', status=b"400 Bad"), "too long"),
        (answer(b"<html>oops</html>", status=b"500 Oops"), "500"),
        (answer(b'{"choices":[]}'), "did not stream"),
        (
            STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
            + b"2\r\n\x1f\x8b\r\n0\r\n\r\n",
            "did not stream",
        ),
        (answer(b"x" * 500_000, status=b"500 Oops"), "500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n", "500"),
    ],
)
async def test_an_error_of_the_engine_after_notices_is_one_event(sent: bytes, message: str) -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        engine.writer.write(sent)
        found = objects((await client.answer()).body)
        assert ["error" in one for one in found] == [False, False, True]
        assert message in found[-1]["error"]["message"]
        assert submission.outcome == "finished"


async def test_an_endless_error_answer_after_notices_costs_its_connection() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        head = b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n"
        engine.writer.write(head + b"1\r\nx\r\n" * (MAX_ERROR_BODY_BYTES + 1))
        found = objects((await client.answer()).body)
        assert "500" in found[-1]["error"]["message"]
        await engine.closed()
        assert submission.outcome == "finished"
        assert plane.upstream.idle_count == 0


async def test_a_crash_within_an_error_answer_after_notices_is_one_event() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        await engine.send(answer(b"x" * 100, status=b"500 Oops")[:-50])
        engine.close()
        found = objects((await client.answer()).body)
        assert ["error" in one for one in found] == [False, False, True]


async def test_no_answer_after_notices_is_given_back_once_and_then_one_event() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.dispatch(submission)
        (await plane.engine.begin()).close()
        (await plane.engine.begin()).close()
        found = objects((await client.answer()).body)
        assert found[-1]["error"]["code"] == "engine_crashed"
        assert submission.bounce_count == 2


async def test_a_crash_in_the_stream_after_notices_is_one_event_and_cut() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        await client.reader.readuntil(event(b"1"))
        engine.close()
        rest = await client.rest()
        assert rest.count(b'"error"') == 1
        assert not rest.endswith(b"0\r\n\r\n")


async def test_half_closing_after_notices_cancels() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        client.half_close()
        await submission.ended.wait()
        assert submission.outcome == "cancelled"


async def test_comments_keep_a_waiting_stream_alive_until_the_engine_speaks() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        client, submission = await waiting(plane)
        connection = await plane.connection()
        await client.head()
        plane.sweep(HEARTBEAT_S)
        assert await client.reader.readuntil(b": waiting\n\n\r\n")
        plane.sweep(2 * HEARTBEAT_S)
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        # The engine reads the prompt, which takes its time.
        plane.sweep(2 * HEARTBEAT_S + 1)
        await engine.send(STREAM_HEAD + event(b"1"))
        before = await client.reader.readuntil(event(b"1"))
        assert before.count(b": waiting") == 4
        plane.sweep(2 * HEARTBEAT_S)
        await engine.send(b"0\r\n\r\n")
        # Between tokens it is the engine's own affair.
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        await until(lambda: connection._exchange is None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (b"/v1/chat/completions", b'{"model":"tiny"}'),
        (b"/v1/completions", STREAM),
        (b"/v1/embeddings", STREAM),
    ],
)
async def test_other_requests_get_no_notices(path: bytes, body: bytes) -> None:
    async with data_plane(answer(), notify_model_swap=True) as plane:
        assert (await plane.ask(post(path, body))).status == 200
        assert not plane.gate.submissions[0].wants_notices


async def test_accepting_events_is_not_asking_for_a_stream() -> None:
    async with data_plane(answer(b"[]"), notify_model_swap=True) as plane:
        body = b'{"model":"tiny","stream":false}'
        found = await plane.ask(post(body=body, fields=b"accept: text/event-stream\r\n"))
        assert (found.status, found.body) == (200, b"[]")
        assert not plane.gate.submissions[0].wants_notices


async def test_a_rejection_without_notices_is_a_plain_answer() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post(body=STREAM))
        submission = await plane.gate.arrived()
        error = ModelLoadFailedError("it crashed", retry_after_s=2.1, should_retry=False)
        plane.gate.reject(submission, error)
        found = await client.answer()
        assert found.status == 503
        assert found.fields[b"retry-after"] == b"3"
        assert found.fields[b"x-should-retry"] == b"false"
        assert json.loads(found.body)["error"]["code"] == "model_load_failed"
