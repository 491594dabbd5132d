"""The fake engine's streams: server-sent events, token by token, gated or free."""

import enum
import json
from collections.abc import Iterator
from typing import Any

from llama_router.stress.fake_engine.connection import Connection, Hangup
from llama_router.stress.fake_engine.state import Stream, client_left, die, wait_readable
from llama_router.stress.fake_engine.words import answer_words, token_count, token_text

Body = dict[str, Any]


class Dialect(enum.Enum):
    """The shapes in which a stream can be said."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    NATIVE = "native"
    ANTHROPIC = "anthropic"


class _Left(Exception):  # noqa: N818 - not an error
    """The client left."""


def stream_answer(connection: Connection, body: Body, dialect: Dialect) -> None:
    """Say an answer token by token."""
    engine = connection.engine
    stream = engine.open_stream(connection.sock)
    how = "client_left"
    try:
        connection.start_stream()
        count, finish = 0, "stop"
        for event in _opening(engine.model_name, dialect):
            connection.send_chunk(event)
        source = _gated(connection, stream) if engine.options.gate_stream else None
        if source is None:
            words, finish = answer_words(engine, body)
            source = _free(connection, words)
        for token in source:
            connection.send_chunk(token_event(engine.model_name, dialect, token))
            count += 1
        prompt = token_count(body.get("messages", body.get("prompt")))
        for event in _closing(engine.model_name, dialect, finish, prompt, count, body):
            connection.send_chunk(event)
        connection.end_stream()
        how = "done"
        # As llama-server, which promises keep-alive and closes after a stream all the same.
        raise Hangup
    except _Left:
        raise Hangup from None
    finally:
        engine.close_stream(stream, how)


def token_event(model: str, dialect: Dialect, text: str) -> bytes:
    """Give the event of one token."""
    match dialect:
        case Dialect.CHAT:
            return _chat_event(model, {"content": text})
        case Dialect.COMPLETIONS:
            choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None}
            return _event({"choices": [choice], "model": model, "object": "text_completion"})
        case Dialect.NATIVE:
            return _event({"index": 0, "content": text, "tokens": [], "stop": False})
        case Dialect.ANTHROPIC:
            delta = {"type": "text_delta", "text": text}
            return _named_event("content_block_delta", {"index": 0, "delta": delta})


def _free(connection: Connection, words: list[str]) -> Iterator[str]:
    interval_s = connection.engine.options.token_interval_ms / 1000
    for word in words:
        if interval_s:
            ready = wait_readable(interval_s, connection.sock)
            if ready and client_left(connection.sock):
                raise _Left
        yield word


def _gated(connection: Connection, stream: Stream) -> Iterator[str]:
    alias = connection.engine.alias
    number = 0
    while True:
        command = stream.take()
        if command is None:
            raise _Left
        if command["do"] == "finish":
            return
        if command["do"] == "cut":
            cut(connection, command["where"], command["how"])
        text = command.get("text")
        for _ in range(command.get("count", 1)):
            yield token_text(alias, number) if text is None else text
            number += 1


def cut(connection: Connection, where: str, how: str) -> None:
    """End a stream badly: after an event, within one, or within a chunk; by death or by closing."""
    event = token_event(connection.engine.model_name, Dialect.CHAT, " cut")
    if where == "half_event":
        connection.send_chunk(event[: len(event) // 2])
    elif where == "mid_chunk":
        connection.send(b"%x\r\n%b" % (len(event), event[: len(event) // 2]))
    if how == "kill":
        die()
    if how == "reset":
        connection.reset()
    raise Hangup


def _opening(model: str, dialect: Dialect) -> list[bytes]:
    if dialect is Dialect.CHAT:
        return [_chat_event(model, {"role": "assistant", "content": None})]
    if dialect is Dialect.ANTHROPIC:
        message = {
            "id": "msg-fake",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": model,
            "usage": {"input_tokens": 1, "output_tokens": 0},
        }
        block = {"type": "text", "text": ""}
        return [
            _named_event("message_start", {"message": message}),
            _named_event("content_block_start", {"index": 0, "content_block": block}),
        ]
    return []


def _closing(
    model: str, dialect: Dialect, finish: str, prompt: int, count: int, body: Body
) -> list[bytes]:
    usage = {"completion_tokens": count, "prompt_tokens": prompt, "total_tokens": prompt + count}
    done = b"data: [DONE]\n\n"
    match dialect:
        case Dialect.CHAT:
            events = [_chat_event(model, {}, finish)]
            if (body.get("stream_options") or {}).get("include_usage"):
                chunk = _chat_chunk(model) | {"choices": [], "usage": usage}
                events.append(_event(chunk))
            return [*events, done]
        case Dialect.COMPLETIONS:
            choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": finish}
            last = {
                "choices": [choice],
                "model": model,
                "object": "text_completion",
                "usage": usage,
            }
            return [_event(last), done]
        case Dialect.NATIVE:
            end: dict[str, object] = {"index": 0, "content": "", "stop": True, "model": model}
            return [_event(end | {"tokens_predicted": count, "tokens_evaluated": prompt})]
        case Dialect.ANTHROPIC:
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            return [
                _named_event("content_block_stop", {"index": 0}),
                _named_event("message_delta", {"delta": delta, "usage": {"output_tokens": count}}),
                _named_event("message_stop", {}),
            ]


def _chat_chunk(model: str) -> dict[str, object]:
    return {
        "created": 1700000000,
        "id": "chatcmpl-fake",
        "model": model,
        "system_fingerprint": "fake",
        "object": "chat.completion.chunk",
    }


def _chat_event(model: str, delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"finish_reason": finish, "index": 0, "delta": delta}
    return _event({"choices": [choice], **_chat_chunk(model)})


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _named_event(name: str, value: dict[str, object]) -> bytes:
    return f"event: {name}\n".encode() + _event({"type": name, **value})
