"""What signals mean to the router.

SIGINT and SIGTERM end it. SIGHUP has two senders: an operator who wants the config read anew, and a
terminal that is closing. The second sends it to whoever was started from it and not by ``nohup``;
then that terminal cannot be opened any more. Who has had no terminal from the start, as under a
service manager or ``nohup``, reloads.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

_TERMINAL = Path("/dev/tty")


def has_terminal() -> bool:
    """Tell whether this process has a terminal that is still there."""
    try:
        descriptor = os.open(_TERMINAL, os.O_RDWR | getattr(os, "O_NOCTTY", 0))
    except OSError:
        return False
    os.close(descriptor)
    return True


class HangUp:
    """Tells a closed terminal from an operator's SIGHUP. Made when the router starts.

    ``has_terminal`` is asked at the start and at each signal.
    """

    def __init__(
        self,
        *,
        reload: Callable[[], object],
        end: Callable[[], object],
        has_terminal: Callable[[], bool] = has_terminal,
    ) -> None:
        self._reload = reload
        self._end = end
        self._has_terminal = has_terminal
        self._had_terminal = has_terminal()

    def __call__(self) -> None:
        """Do what the signal means."""
        if self._had_terminal and not self._has_terminal():
            self._end()
        else:
            self._reload()


def install(*, end: Callable[[], object], reload: Callable[[], object]) -> None:
    """Take signals on the running loop: ``end`` and ``reload`` are called on it."""
    loop = asyncio.get_running_loop()
    # Whoever started the router may have switched SIGHUP off, as nohup does: a closing terminal
    # means nothing to it then, so that the signal is an operator's.
    is_ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    hang_up = HangUp(reload=reload, end=reload if is_ignored else end)
    actions: dict[str, Callable[[], object]] = {
        "SIGINT": end,
        "SIGTERM": end,
        "SIGHUP": hang_up,
        "SIGBREAK": end,
    }
    for name, action in actions.items():
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, action)
        except NotImplementedError:
            # Windows: handlers run on the main thread between bytecodes.
            signal.signal(number, lambda *_, do=action: loop.call_soon_threadsafe(do))
