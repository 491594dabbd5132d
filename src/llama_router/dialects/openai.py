"""OpenAI's dialect: how errors and stream chunks are written.

Source: the OpenAI API reference (error object; chat.completion.chunk) and what the official Python
client makes of both (it raises APIError on an event whose object has ``error``).
"""

import msgspec

_encoder = msgspec.json.Encoder()


def error_body(message: str, *, error_type: str, code: str, param: str | None = None) -> bytes:
    """Return the JSON of an error object."""
    return _encoder.encode(
        {"error": {"message": message, "type": error_type, "param": param, "code": code}}
    )


def sse_error(message: str, *, error_type: str, code: str) -> bytes:
    """Return one server-sent event that carries an error."""
    return b"data: " + error_body(message, error_type=error_type, code=code) + b"\n\n"


def sse_reasoning_chunk(completion_id: str, created_s: int, model: str, text: str) -> bytes:
    """Return one event with a chat.completion.chunk whose delta is ``text`` of reasoning.

    ``created_s`` is Unix time in whole seconds.
    """
    chunk = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created_s,
        "model": model,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": None, "reasoning_content": text},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    return b"data: " + _encoder.encode(chunk) + b"\n\n"
