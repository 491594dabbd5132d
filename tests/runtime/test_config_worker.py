import io
import pickle
import sys
from collections.abc import Callable

import pytest

from llama_router.config.problems import ConfigError, Problem
from llama_router.runtime import config_worker


def refused(message: str) -> None:
    raise ConfigError([Problem("c.yaml", 3, "a", message, 5)])


def broken() -> None:
    raise ZeroDivisionError


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes]]:
    def asked(function: Callable[..., object], *arguments: object) -> tuple[int, bytes]:
        question, told = io.BytesIO(pickle.dumps((function, arguments))), io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(question))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told))
        monkeypatch.setattr(config_worker, "_NICENESS", 0)
        monkeypatch.setattr(config_worker, "_end_with", lambda _source: None)
        return config_worker.main(), told.getvalue()

    return asked


def test_work_is_done_and_answered(ask: Callable[..., tuple[int, bytes]]) -> None:
    status, told = ask(divmod, 7, 2)
    assert (status, pickle.loads(told)) == (0, ((3, 1), ()))  # noqa: S301 - our own


def test_what_is_wrong_with_a_text_is_an_answer(ask: Callable[..., tuple[int, bytes]]) -> None:
    status, told = ask(refused, "is wrong")
    answer = (None, (Problem("c.yaml", 3, "a", "is wrong", 5),))
    assert (status, pickle.loads(told)) == (0, answer)  # noqa: S301 - our own


def test_a_fault_of_ours_is_none(ask: Callable[..., tuple[int, bytes]]) -> None:
    assert ask(broken) == (1, b"")
