import json

import pytest

from llama_router.dialects import openai

NASTY = 'a"b\\c\r\n\n data: [DONE]\u2028ä'


def test_an_error_is_written_as_the_reference_has_it() -> None:
    body = openai.error_body(NASTY, error_type="t", code="c", param="p")
    assert json.loads(body) == {"error": {"message": NASTY, "type": "t", "param": "p", "code": "c"}}


@pytest.mark.parametrize(
    "event",
    [
        openai.sse_error(NASTY, error_type="t", code="c"),
        openai.sse_reasoning_chunk("id", 7, NASTY, NASTY),
    ],
)
def test_an_event_is_one_line_whatever_it_carries(event: bytes) -> None:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    json.loads(event[6:])


def test_a_chunk_is_one_that_clients_know() -> None:
    chunk = json.loads(openai.sse_reasoning_chunk("id", 7, "m", "text")[6:])
    assert (chunk["object"], chunk["id"], chunk["created"]) == ("chat.completion.chunk", "id", 7)
    [choice] = chunk["choices"]
    assert choice["delta"]["reasoning_content"] == "text"
    assert choice["delta"]["content"] is None
    types = pytest.importorskip("openai.types.chat")
    types.ChatCompletionChunk.model_validate(chunk, strict=True)
