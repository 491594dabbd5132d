"""Whether an answer may be what it is: its words are its model's, its error a documented one."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from llama_router.stress.fake_engine.words import token_text
from llama_router.stress.wire import Answer, AnswerEnd

# docs/api.md: what a request for a known model may end with while engines fail.
ERROR_CODES = frozenset(
    {
        "does_not_fit",
        "engine_crashed",
        "engine_timeout",
        "bad_upstream",
        "load_timeout",
        "model_backing_off",
        "model_failed",
        "model_load_failed",
        "model_stuck",
        "model_unloaded",
        "queue_full",
        "queue_timeout",
        "too_many_waiting_bodies",
    }
)
_MODEL = re.compile(rb'"model":"([^"]*)"')
_EMBEDDING_LENGTH = 4
_OK = 200


class WrongAnswerError(Exception):
    """An answer that must never be given; the text says why."""


def words(model: str, count: int) -> str:
    """Return what an engine of ``model`` says in ``count`` tokens."""
    return "".join(token_text(model, number) for number in range(count))


def judge(kind: str, model: str, count: int, answer: Answer) -> str:
    """Return the outcome's name of a chat, stream or embedding. Raises WrongAnswerError."""
    if answer.end is AnswerEnd.NONE:
        raise WrongAnswerError("the connection was closed without an answer")
    _check_model(model, answer)
    if answer.status != _OK:
        return f"error {error_code(answer, ERROR_CODES)}"
    match kind:
        case "stream":
            return _judge_stream(words(model, count), answer)
        case _ if not _is_whole(answer):
            return f"cut {kind}"
        case "embedding":
            vector = _member(answer, "data", 0, "embedding")
            expected = [byte / 255 for byte in hashlib.sha256(model.encode()).digest()]
            if vector != expected[:_EMBEDDING_LENGTH]:
                raise WrongAnswerError(f"the embedding is not {model}'s: {vector}")
        case _:
            said = _member(answer, "choices", 0, "message", "content")
            if said != words(model, count):
                raise WrongAnswerError(f"not {model}'s words: {str(said)[:200]!r}")
    return f"ok {kind}"


def code_of(outcome: str) -> str:
    """Return the code of the error that an outcome of ``judge`` is, "cut", or "" if it is good."""
    kind, _, rest = outcome.partition(" ")
    match kind:
        case "error":
            return rest.partition(" ")[0]
        case "cut":
            return kind
        case _:
            return ""


def judge_faulty(model: str, answer: Answer) -> str:
    """Return the outcome's name of a request whose engine was told to break HTTP."""
    if answer.end is AnswerEnd.NONE:
        raise WrongAnswerError("the connection was closed without an answer")
    _check_model(model, answer)
    lost = [name for name in ("x-evil", "set-cookie", "x-huge") if name in answer.headers]
    if lost:
        raise WrongAnswerError(f"unsafe headers were passed on: {lost}")
    if b'"internal_error"' in answer.body:
        raise WrongAnswerError("the router made a mistake of its own (internal_error)")
    return f"fault {answer.end.value} {answer.status}"


def error_code(answer: Answer, allowed: frozenset[str]) -> str:
    """Return the code of an error that the router itself gives. Raises WrongAnswerError."""
    try:
        code = str(json.loads(answer.body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        raise WrongAnswerError(
            f"status {answer.status} without an error object: {answer.body[:200]!r}"
        ) from None
    if code not in allowed:
        raise WrongAnswerError(f"status {answer.status}, unexpected: {answer.body[:300]!r}")
    return code


def _check_model(model: str, answer: Answer) -> None:
    for found in _MODEL.findall(answer.body):
        if found.decode("utf-8", "replace") != model:
            raise WrongAnswerError(f"asked {model}, answered by {found[:80]!r}")


def _is_whole(answer: Answer) -> bool:
    return answer.end is AnswerEnd.WHOLE


def _member(answer: Answer, *way: str | int) -> Any:  # noqa: ANN401 - JSON
    """Return what is there in the JSON of a whole answer. Raises WrongAnswerError."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        raise WrongAnswerError(f"a whole answer is no JSON: {answer.body[:200]!r}") from None
    try:
        for step in way:
            found = found[step]
    except (LookupError, TypeError):
        raise WrongAnswerError(f"a whole answer makes no sense: {answer.body[:200]!r}") from None
    return found


def _judge_stream(expected: str, answer: Answer) -> str:
    text, error, is_done = _read_stream(answer)
    if not expected.startswith(text):
        raise WrongAnswerError(f"not the model's words: {text[:200]!r}")
    if is_done:
        if text != expected:
            raise WrongAnswerError(f"{len(text)} of {len(expected)} characters, and then [DONE]")
        return "ok stream" if _is_whole(answer) else "cut stream"
    if error:
        if error not in ERROR_CODES:
            raise WrongAnswerError(f"unexpected error in a stream: {error}")
        return f"error {error} in a stream"
    if _is_whole(answer):
        raise WrongAnswerError("a stream ended as if whole, with neither [DONE] nor an error")
    return "cut stream"


def _read_stream(answer: Answer) -> tuple[str, str, bool]:
    """Return what a stream said, the code of its error, and whether it said [DONE]."""
    text, error, is_done = "", "", False
    for data in _events(answer.body, is_whole=_is_whole(answer)):
        if is_done:
            raise WrongAnswerError(f"an event after [DONE]: {data[:200]!r}")
        if error:
            raise WrongAnswerError(f"an event after an error: {data[:200]!r}")
        if data == "[DONE]":
            is_done = True
            continue
        try:
            event = json.loads(data)
            if "error" in event:
                error = str(event["error"]["code"])
            else:
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        except (ValueError, LookupError, TypeError):
            raise WrongAnswerError(f"an event makes no sense: {data[:200]!r}") from None
    return text, error, is_done


def _events(body: bytes, *, is_whole: bool) -> Iterator[str]:
    """Yield the data of each event; what follows the last blank line counts if it is all."""
    *events, rest = body.decode("utf-8", "replace").split("\n\n")
    if rest and is_whole:
        raise WrongAnswerError(f"the last event does not end: {rest[-200:]!r}")
    for event in events:
        lines = [line for line in event.split("\n") if not line.startswith(":")]
        if lines:
            yield "\n".join(line.removeprefix("data:").strip() for line in lines)
