"""Chats over HTTP: the requests of tests, and reading what comes of them."""

import json
from typing import Any

import httpx2

CHAT = "/v1/chat/completions"


def body(model: str, **rest: object) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **rest}


def events(text: str) -> list[Any]:
    """Give the events of a stream as far as it is there, decoded; "[DONE]" as it is."""
    found = []
    # What the last blank line is followed by is the beginning of an event.
    for block in text.split("\n\n")[:-1]:
        # The router's own events are numbered.
        _, is_data, data = block.rpartition("data: ") if block[:4] == "id: " else ("", "", "")
        if is_data or block.startswith("data: "):
            data = data or block.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def deltas(text: str, key: str = "content") -> list[str]:
    """Give what the chunks of a stream say under one key of their delta."""
    return [
        event["choices"][0]["delta"][key]
        for event in events(text)
        if event != "[DONE]" and event.get("choices") and event["choices"][0]["delta"].get(key)
    ]


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """Give the error object of an answer in OpenAI's shape; fails for any other shape."""
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str)
    assert error["message"]
    return error
