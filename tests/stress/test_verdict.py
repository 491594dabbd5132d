"""Right answers pass, and each wrong one is told apart."""

import hashlib
import json

import pytest

from llama_router.stress.verdict import WrongAnswerError, judge, judge_faulty, words
from llama_router.stress.wire import Answer, AnswerEnd


def answer(body: object, status: int = 200, end: AnswerEnd = AnswerEnd.WHOLE) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return Answer(end, status, {}, data)


def chat(text: str, model: str = "alpha") -> dict[str, object]:
    return {"model": model, "choices": [{"message": {"content": text}}]}


def stream(*texts: str, tail: bytes = b"data: [DONE]\n\n") -> bytes:
    events = [{"model": "alpha", "choices": [{"delta": {"content": text}}]} for text in texts]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + tail


ERROR = b'data: {"error":{"code":"engine_crashed"}}\n\n'


def test_words_are_those_of_the_engine() -> None:
    assert words("alpha", 3) == " alpha 1 2"


def test_right_answers_pass() -> None:
    vector = [byte / 255 for byte in hashlib.sha256(b"alpha").digest()[:4]]
    cut = AnswerEnd.CUT
    assert judge("chat", "alpha", 2, answer(chat(" alpha 1"))) == "ok chat"
    assert judge("chat", "alpha", 2, answer(b'{"mod', end=cut)) == "cut chat"
    assert judge("stream", "alpha", 2, answer(stream(" alpha", " 1"))) == "ok stream"
    assert judge("stream", "alpha", 9, answer(stream(" alpha", tail=b""), end=cut)) == "cut stream"
    assert judge("stream", "alpha", 9, answer(stream(" alpha", tail=ERROR), end=cut)) == (
        "error engine_crashed in a stream"
    )
    body = {"model": "alpha", "data": [{"embedding": vector}]}
    assert judge("embedding", "alpha", 0, answer(body)) == "ok embedding"
    # Its words are all there, but its end is not.
    torn = answer(stream(" alpha", " 1"), end=cut)
    assert judge("stream", "alpha", 2, torn) == "cut stream"
    error = answer({"error": {"code": "model_load_failed"}}, 503)
    assert judge("chat", "alpha", 2, error) == "error model_load_failed"


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("chat", answer(b"", end=AnswerEnd.NONE), "without an answer"),
        ("chat", answer(chat(" alpha 1", model="bravo")), "answered by"),
        ("chat", answer(chat(" bravo 1")), "words"),
        ("chat", answer(chat(" alpha")), "words"),
        ("chat", answer(b"{"), "no JSON"),
        ("chat", answer({"error": {"code": "internal_error"}}, 500), "unexpected"),
        ("chat", answer(b"oops", 500), "without an error object"),
        ("stream", answer(stream(" bravo")), "words"),
        ("stream", answer(stream(" alpha")), "and then"),
        ("stream", answer(stream(" alpha", " 1", tail=b"")), "as if whole"),
        ("stream", answer(stream(" alpha", " 1") + ERROR), "after"),
        ("stream", answer(stream(" alpha", " 1", tail=b"data: {")), "does not end"),
        ("stream", answer(b"data: {}\n\n"), "makes no sense"),
        ("stream", answer(ERROR.replace(b"engine_crashed", b"internal_error")), "unexpected"),
        ("embedding", answer({"data": [{"embedding": [1, 2, 3, 4]}]}), "embedding"),
        ("embedding", answer({"data": [{"embedding": None}]}), "embedding"),
        ("embedding", answer({"data": []}), "makes no sense"),
        ("chat", answer({"choices": []}), "makes no sense"),
        ("chat", answer([]), "makes no sense"),
        ("stream", answer(ERROR + stream(" alpha", " 1")), "after an error"),
    ],
)
def test_wrong_answers_are_told(kind: str, given: Answer, why: str) -> None:
    with pytest.raises(WrongAnswerError, match=why):
        judge(kind, "alpha", 2, given)


def test_broken_engines_may_end_anyhow_but_never_unsafely() -> None:
    assert judge_faulty("alpha", answer(b"", 502)) == "fault whole 502"
    evil = Answer(AnswerEnd.WHOLE, 200, {"set-cookie": "stolen=1"})
    with pytest.raises(WrongAnswerError, match="unsafe headers"):
        judge_faulty("alpha", evil)
    with pytest.raises(WrongAnswerError, match="internal_error"):
        judge_faulty("alpha", answer({"error": {"code": "internal_error"}}, 500))
