import asyncio
import os
import signal
import sys

import pytest

from llama_router.runtime.signals import HangUp, install


class Terminal:
    def __init__(self, *, is_there: bool) -> None:
        self.is_there = is_there
        self.log: list[str] = []

    def hang_up(self) -> HangUp:
        return HangUp(
            reload=lambda: self.log.append("reload"),
            end=lambda: self.log.append("end"),
            has_terminal=lambda: self.is_there,
        )


def test_a_terminal_that_has_gone_ends_and_one_that_is_there_reloads() -> None:
    terminal = Terminal(is_there=True)
    hang_up = terminal.hang_up()
    hang_up()
    terminal.is_there = False
    hang_up()
    assert terminal.log == ["reload", "end"]


def test_who_never_had_a_terminal_reloads() -> None:
    terminal = Terminal(is_there=False)
    terminal.hang_up()()
    assert terminal.log == ["reload"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.asyncio
async def test_signals_are_taken_even_where_hang_ups_were_ignored() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    try:
        install(
            end=lambda: heard.put_nowait("end"),
            reload=lambda: heard.put_nowait("reload"),
        )
        async with asyncio.timeout(20):
            os.kill(os.getpid(), signal.SIGHUP)
            assert await heard.get() == "reload"
            os.kill(os.getpid(), signal.SIGTERM)
            assert await heard.get() == "end"
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, before)
