"""What the fake engine answers: llama-server's routes, with words that tell which model spoke."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

from llama_router.stress.fake_engine.connection import Connection, Request
from llama_router.stress.fake_engine.faults import FAULTS
from llama_router.stress.fake_engine.streams import Dialect, stream_answer
from llama_router.stress.fake_engine.words import answer_words, token_count

_EMBEDDING_LENGTH = 4
_CREATED = 1700000000

Body = dict[str, Any]
Route = Callable[[Connection, Body], None]


def answer(connection: Connection, request: Request) -> None:
    """Answer one request, or meet the fault that is armed for it."""
    engine = connection.engine
    with engine.lock:
        engine.requests += 1
        engine.last_request = {
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body": request.body[:65536].decode("latin-1"),
            "body_bytes": len(request.body),
        }
    if request.path == "/fake/state":
        connection.send_json(engine.state())
        return
    engine.tell("request", method=request.method, target=request.target)
    if not engine.is_ready:
        connection.send_error(503, "unavailable_error", "Loading model")
    if request.method == "POST" and request.path in _POST:
        _answer_post(connection, request)
    elif request.method in ("GET", "HEAD") and request.path in _GET:
        _GET[request.path](connection, {})
    else:
        error = {"message": "File Not Found", "type": "not_found_error", "code": 404}
        connection.send_json({"error": error}, 404)


def _answer_post(connection: Connection, request: Request) -> None:
    engine = connection.engine
    with engine.lock:
        engine.inference_requests += 1
    if request.header("content-type").lower().startswith("multipart/"):
        given: object = _form(request)
    else:
        try:
            given = json.loads(request.body)
        except ValueError as error:
            message = f"[json.exception.parse_error.101] parse error: {error}"
            connection.send_error(400, "invalid_request_error", message)
            return
    if not isinstance(given, dict):
        connection.send_error(400, "invalid_request_error", "the body has to be a JSON object")
    body: Body = cast("Body", given)
    fault = engine.next_fault() or str(body.get("fake_fault", ""))
    if fault:
        FAULTS[fault](connection, body)
    else:
        _POST[request.path](connection, body)


def _form(request: Request) -> Body:
    """Read a multipart form: text fields as they are, files by name, size and hash."""
    # Slow to import, and few engines need it.
    import email.parser
    import email.policy

    head = f"Content-Type: {request.header('content-type')}\r\n\r\n".encode("latin-1")
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    fields: Body = {}
    for part in parser.parsebytes(head + request.body).iter_parts():
        content = part.get_payload(decode=True)
        data = content if isinstance(content, bytes) else b""
        name = str(part.get_param("name", header="content-disposition"))
        if part.get_filename() is None:
            fields[name] = data.decode()
        else:
            digest = hashlib.sha256(data).hexdigest()
            fields[name] = {"filename": part.get_filename(), "bytes": len(data), "sha256": digest}
    return fields


def _health(connection: Connection, _body: Body) -> None:
    connection.send_json({"status": "ok"})


def _models(connection: Connection, _body: Body) -> None:
    connection.send_json({"object": "list", "data": [connection.engine.model_info()]})


def _props(connection: Connection, _body: Body) -> None:
    engine = connection.engine
    connection.send_json(
        {
            "default_generation_settings": {"params": {}, "n_ctx": 4096},
            "total_slots": 4,
            "model_alias": engine.model_name,
            "model_path": engine.options.model,
            "modalities": {"vision": False, "audio": True, "video": False},
            "chat_template": "fake",
            "build_info": "fake",
            "is_sleeping": False,
        }
    )


def _slots(connection: Connection, _body: Body) -> None:
    with connection.engine.lock:
        busy = len(connection.engine.streams)
    slots = [
        {"id": slot, "n_ctx": 4096, "speculative": False, "is_processing": slot < busy}
        for slot in range(max(4, busy))
    ]
    connection.send_json(slots)


def _chat(connection: Connection, body: Body) -> None:
    if "messages" not in body:
        connection.send_error(400, "invalid_request_error", "'messages' is required")
    if body.get("stream"):
        stream_answer(connection, body, Dialect.CHAT)
        return
    words, finish = answer_words(connection.engine, body)
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"finish_reason": finish, "index": 0, "message": message}
    _send_completion(connection, body, "chat.completion", choice, len(words))


def _completions(connection: Connection, body: Body) -> None:
    if body.get("stream"):
        stream_answer(connection, body, Dialect.COMPLETIONS)
        return
    words, finish = answer_words(connection.engine, body)
    choice = {"text": "".join(words), "index": 0, "logprobs": None, "finish_reason": finish}
    _send_completion(connection, body, "text_completion", choice, len(words))


def _send_completion(
    connection: Connection, body: Body, kind: str, choice: dict[str, object], words: int
) -> None:
    prompt = token_count(body.get("messages", body.get("prompt")))
    connection.send_json(
        {
            "choices": [choice],
            "created": _CREATED,
            "model": connection.engine.model_name,
            "system_fingerprint": "fake",
            "object": kind,
            "usage": {
                "completion_tokens": words,
                "prompt_tokens": prompt,
                "total_tokens": prompt + words,
            },
            "id": "chatcmpl-fake",
        }
    )


def _completion(connection: Connection, body: Body) -> None:
    if body.get("stream"):
        stream_answer(connection, body, Dialect.NATIVE)
        return
    words, _ = answer_words(connection.engine, body)
    connection.send_json(
        {
            "index": 0,
            "content": "".join(words),
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": connection.engine.model_name,
            "tokens_predicted": len(words),
            "tokens_evaluated": token_count(body.get("prompt")),
        }
    )


def _embeddings(connection: Connection, body: Body) -> None:
    given = body.get("input", body.get("content", ""))
    texts = given if isinstance(given, list) else [given]
    seed = hashlib.sha256(connection.engine.alias.encode()).digest()
    vector = [byte / 255 for byte in seed[:_EMBEDDING_LENGTH]]
    tokens = sum(token_count(text) for text in texts)
    connection.send_json(
        {
            "model": connection.engine.model_name,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [
                {"embedding": vector, "index": index, "object": "embedding"}
                for index in range(len(texts))
            ],
        }
    )


def _rerank(connection: Connection, body: Body) -> None:
    documents = body.get("documents", [])
    connection.send_json(
        {
            "model": connection.engine.model_name,
            "object": "list",
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "results": [
                {"index": index, "relevance_score": -float(index)}
                for index in range(len(documents))
            ],
        }
    )


def _tokenize(connection: Connection, body: Body) -> None:
    connection.send_json({"tokens": [ord(char) for char in body.get("content", "")]})


def _detokenize(connection: Connection, body: Body) -> None:
    connection.send_json({"content": "".join(chr(token) for token in body.get("tokens", []))})


def _apply_template(connection: Connection, body: Body) -> None:
    lines = [f"{message['role']}: {message['content']}" for message in body.get("messages", [])]
    connection.send_json({"prompt": "\n".join([*lines, "assistant:"])})


def _messages(connection: Connection, body: Body) -> None:
    if body.get("stream"):
        stream_answer(connection, body, Dialect.ANTHROPIC)
        return
    words, finish = answer_words(connection.engine, body)
    connection.send_json(
        {
            "id": "chatcmpl-fake",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "".join(words)}],
            "model": connection.engine.model_name,
            "stop_reason": "max_tokens" if finish == "length" else "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": token_count(body.get("messages")),
                "output_tokens": len(words),
            },
        }
    )


def _echo(connection: Connection, body: Body) -> None:
    connection.send_json(
        {"text": connection.engine.alias, "model": connection.engine.model_name, "fields": body}
    )


_GET: dict[str, Route] = {
    "/health": _health,
    "/v1/health": _health,
    "/models": _models,
    "/v1/models": _models,
    "/props": _props,
    "/slots": _slots,
}
_POST: dict[str, Route] = {
    "/v1/chat/completions": _chat,
    "/chat/completions": _chat,
    "/v1/completions": _completions,
    "/completion": _completion,
    "/completions": _completion,
    "/infill": _completion,
    "/v1/embeddings": _embeddings,
    "/embeddings": _embeddings,
    "/embedding": _embeddings,
    "/v1/rerank": _rerank,
    "/rerank": _rerank,
    "/reranking": _rerank,
    "/tokenize": _tokenize,
    "/detokenize": _detokenize,
    "/apply-template": _apply_template,
    "/v1/messages": _messages,
    "/v1/responses": _echo,
    "/v1/audio/transcriptions": _echo,
    "/v1/audio/speech": _echo,
    "/v1/images/generations": _echo,
}
