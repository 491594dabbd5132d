"""What an engine answers, as far as the router relies on it."""

import json
from typing import Any

import pytest

from tests.conformance.conftest import Launch
from tests.conformance.harness import RunningEngine, running

pytestmark = pytest.mark.asyncio

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello there"}]}
JSON = "application/json; charset=utf-8"


async def test_a_chat_is_one_json_object_with_usage(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 3})
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"].strip()
    assert body["choices"][0]["finish_reason"] == "length"
    usage = body["usage"]
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3


async def test_answers_are_deterministic(engine: RunningEngine) -> None:
    said = [
        (await engine.request("POST", "/v1/chat/completions", CHAT)).json()["choices"][0]
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert said[0]["finish_reason"] == "stop"


async def test_a_streamed_chat_is_events_up_to_done(engine: RunningEngine) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 3}
    answer = await engine.request("POST", "/v1/chat/completions", {**CHAT, **options})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    *events, done = answer.events()
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    *said, end, usage = chunks
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in said)
    assert len(said) == 4
    assert end["choices"][0] == {"finish_reason": "length", "index": 0, "delta": {}}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3


async def test_a_stream_says_what_the_whole_answer_says(engine: RunningEngine) -> None:
    whole = await engine.request("POST", "/v1/chat/completions", CHAT)
    stream = await engine.request("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    deltas = [json.loads(event)["choices"][0]["delta"] for event in stream.events()[:-1]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == whole.json()["choices"][0]["message"]["content"]


async def test_each_token_comes_in_a_chunk_of_its_own(engine: RunningEngine) -> None:
    async with engine.client() as client:
        await client.send("POST", "/v1/chat/completions", {**CHAT, "stream": True, "max_tokens": 2})
        status, _ = await client.read_head()
        assert status == 200
        chunks = []
        while chunk := await client.read_chunk():
            chunks.append(chunk)
    assert len(chunks) > 2
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


async def test_completions(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 2})
    body = answer.json()
    assert (answer.status, body["object"]) == (200, "text_completion")
    assert body["choices"][0]["text"].strip()
    assert body["usage"]["completion_tokens"] == 2


async def test_streamed_completions(engine: RunningEngine) -> None:
    request = {"prompt": "hello", "max_tokens": 2, "stream": True}
    *events, done = (await engine.request("POST", "/v1/completions", request)).events()
    assert done == "[DONE]"
    assert [json.loads(event)["choices"][0]["finish_reason"] for event in events] == [
        None,
        None,
        "length",
    ]


async def test_llama_servers_own_completion(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/completion", {"prompt": "hello", "n_predict": 2})
    body = answer.json()
    assert (answer.status, body["stop"], body["tokens_predicted"]) == (200, True, 2)


async def test_its_stream_ends_without_done(engine: RunningEngine) -> None:
    request = {"prompt": "hello", "n_predict": 2, "stream": True}
    events = (await engine.request("POST", "/completion", request)).events()
    assert [json.loads(event)["stop"] for event in events] == [False, False, True]


async def test_anthropic_messages(engine: RunningEngine) -> None:
    request = {**CHAT, "model": "any", "max_tokens": 2}
    body = (await engine.request("POST", "/v1/messages", request)).json()
    assert (body["type"], body["role"], body["stop_reason"]) == (
        "message",
        "assistant",
        "max_tokens",
    )
    assert body["content"][0]["type"] == "text"
    assert body["usage"]["output_tokens"] == 2


async def test_tokens_and_back(engine: RunningEngine) -> None:
    tokens = (await engine.request("POST", "/tokenize", {"content": "fox"})).json()["tokens"]
    assert tokens
    back = await engine.request("POST", "/detokenize", {"tokens": tokens})
    assert back.json()["content"].strip() == "fox"


async def test_apply_template(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/apply-template", CHAT)
    assert "hello there" in answer.json()["prompt"]


async def test_embeddings(launch: Launch) -> None:
    async with running(launch("--embeddings", "--pooling", "mean")) as engine:
        await engine.states(until="ready")
        answer = await engine.request("POST", "/v1/embeddings", {"input": ["one", "two"]})
    body = answer.json()
    assert (answer.status, body["object"]) == (200, "list")
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert all(isinstance(number, float) for item in body["data"] for number in item["embedding"])
    assert body["usage"]["prompt_tokens"] > 0


async def test_the_model_list_has_the_model(engine: RunningEngine) -> None:
    body = (await engine.request("GET", "/v1/models")).json()
    assert body["object"] == "list"
    path = engine.spec.argv[engine.spec.argv.index("--model") + 1]
    assert [model["id"] for model in body["data"]] == [path]


async def test_props_and_slots(engine: RunningEngine) -> None:
    props = (await engine.request("GET", "/props")).json()
    slots = (await engine.request("GET", "/slots")).json()
    assert props["total_slots"] == len(slots) == 4
    assert props["model_path"].endswith("fox.gguf")
    assert [slot["is_processing"] for slot in slots] == [False] * 4


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_route_is_404_in_json(engine: RunningEngine, method: str) -> None:
    answer = await engine.request(method, "/no/such/route", b"{}" if method == "POST" else None)
    assert (answer.status, answer.headers["content-type"]) == (404, JSON)
    assert answer.json()["error"] == {
        "message": "File Not Found",
        "type": "not_found_error",
        "code": 404,
    }


async def test_bad_json_is_400_in_json(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/v1/chat/completions", b'{"messages":')
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert "parse error" in error["message"]


async def test_a_missing_field_is_400_in_json(engine: RunningEngine) -> None:
    answer = await engine.request("POST", "/v1/chat/completions", {"max_tokens": 1})
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_error_ends_the_connection_and_says_so(engine: RunningEngine) -> None:
    async with engine.client() as client:
        answer = await client.request("POST", "/v1/chat/completions", b"{")
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()


async def test_a_connection_serves_several_requests(engine: RunningEngine) -> None:
    async with engine.client() as client:
        for _ in range(3):
            answer = await client.request(
                "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}
            )
            assert answer.status == 200
            assert answer.headers.get("connection") != "close"


async def test_a_client_that_wants_no_more_than_one_answer_gets_that(engine: RunningEngine) -> None:
    async with engine.client() as client:
        await client.send("GET", "/health", fields="Connection: close\r\n")
        status, headers = await client.read_head()
        rest = await client._reader.read()
    assert (status, len(rest)) == (200, int(headers["content-length"]))


async def test_a_stream_ends_the_connection_without_saying_so(engine: RunningEngine) -> None:
    async with engine.client() as client:
        request = {"prompt": "a", "max_tokens": 1, "stream": True}
        streamed = await client.request("POST", "/v1/completions", request)
        assert streamed.events()[-1] == "[DONE]"
        assert streamed.headers.get("connection") != "close"
        assert await client.is_closed()


async def test_head_has_no_body(engine: RunningEngine) -> None:
    async with engine.client() as client:
        answer = await client.request("HEAD", "/health")
        assert (answer.status, answer.headers["content-length"]) == (200, "15")
        assert (await client.request("GET", "/health")).status == 200


async def test_a_client_that_leaves_frees_its_slot(launch: Launch) -> None:
    spec = launch(model="endless", fake_flags=("--gate-stream",))
    async with running(spec) as engine:
        await engine.states(until="ready")
        async with engine.client() as client:
            request = {**CHAT, "stream": True, "ignore_eos": True}
            await client.send("POST", "/v1/chat/completions", request)
            await client.read_head()
            await client.read_chunk()
            assert sum(await _busy(engine)) == 1
        # The engine notices within its own time; each question is answered in less.
        while any(await _busy(engine)):
            pass


async def _busy(engine: RunningEngine) -> list[bool]:
    slots = (await engine.request("GET", "/slots")).json()
    return [slot["is_processing"] for slot in slots]
