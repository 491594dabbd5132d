import pytest

from llama_router.proxy.gate import NoticeKind
from llama_router.proxy.notices import notice_text


@pytest.mark.parametrize(
    ("kind", "fraction", "text"),
    [
        (NoticeKind.UNLOADING, None, "[llama-router] Unloading a/b:Q\n"),
        (NoticeKind.LOADING, None, "[llama-router] Loading a/b:Q\n"),
        (NoticeKind.LOADING, 0.0, "[llama-router] Loading a/b:Q: 0 %\n"),
        (NoticeKind.LOADING, 0.57, "[llama-router] Loading a/b:Q: 57 %\n"),
        (NoticeKind.LOADING, 0.999, "[llama-router] Loading a/b:Q: 99 %\n"),
        (NoticeKind.LOADING, 1.0, "[llama-router] Loading a/b:Q: 100 %\n"),
        (NoticeKind.READY, None, "[llama-router] a/b:Q is ready\n"),
    ],
)
def test_a_notice_is_one_line(kind: NoticeKind, fraction: float | None, text: str) -> None:
    assert notice_text(kind, "a/b:Q", fraction) == text


def test_who_waits_is_told_its_position() -> None:
    text = notice_text(NoticeKind.QUEUED, "a/b:Q", None, 3)
    assert text == "[llama-router] Waiting for a/b:Q: position 3\n"
