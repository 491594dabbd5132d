import io
import logging
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

from llama_router.cli import logs
from llama_router.cli.logs import LogQueue

_log = logging.getLogger("llama_router.test")


class Terminal(io.StringIO):
    """A stderr that takes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.is_full = False

    def write(self, text: str) -> int:
        assert self.may_write.wait(60)
        if self.is_full:
            raise OSError("no space left on device")
        return super().write(text)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    terminal.may_write.set()
    level = logging.getLogger().level
    yield terminal
    logging.getLogger().setLevel(level)


def test_lines_of_the_level_and_above_are_written_with_their_severity(terminal: Terminal) -> None:
    with redirect_stderr(terminal), LogQueue("warning"):
        _log.info("not shown")
        _log.warning("[%s] %s", "alpha", "100 % done")
        _log.error("failed")
    first, second = terminal.getvalue().splitlines()
    assert first.endswith(" W [alpha] 100 % done")
    assert second.endswith(" E failed")


def test_afterwards_nothing_is_written_any_more(terminal: Terminal) -> None:
    with redirect_stderr(terminal), LogQueue("info"):
        pass
    _log.error("late")
    assert terminal.getvalue() == ""


def test_a_terminal_that_does_not_keep_up_costs_lines_and_nobody_waits(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MAX_QUEUED_COUNT", 10)
    terminal.may_write.clear()
    with redirect_stderr(terminal), LogQueue("info"):
        for number in range(100):
            _log.info("line %d", number)
        terminal.may_write.set()
    written = terminal.getvalue()
    assert "line 0\n" in written
    assert "line 99\n" not in written
    assert " lines dropped]\n" in written


def test_a_full_disk_ends_nothing(terminal: Terminal) -> None:
    with redirect_stderr(terminal), LogQueue("info"):
        terminal.is_full = True
        _log.info("lost")
        _log.info("lost too")
    assert terminal.getvalue() == ""


def test_other_libraries_are_heard_only_when_something_is_wrong(terminal: Terminal) -> None:
    with redirect_stderr(terminal), LogQueue("debug"):
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("asyncio").warning("slow callback")
    assert "started" not in terminal.getvalue()
    assert "slow callback" in terminal.getvalue()


def test_a_message_stays_on_its_line_whatever_names_are_in_it(terminal: Terminal) -> None:
    with redirect_stderr(terminal), LogQueue("info"):
        _log.info("%s is ready", "one\ntwo\x1b[31m")
        try:
            int("a mistake")
        except ValueError:
            _log.exception("fault")
    first, second, *trace = terminal.getvalue().splitlines()
    assert first.endswith(r" I one\ntwo\x1b[31m is ready")
    assert second.endswith(" E fault")
    assert trace[-1].startswith("ValueError: ")
