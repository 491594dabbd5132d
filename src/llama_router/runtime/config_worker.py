"""The process that works on long texts of configs, so that the router's interpreter need not.

Started for one piece of work, which stdin names; what comes of it is written to stdout.
"""

import contextlib
import os
import pickle
import sys
import threading
from typing import Any, BinaryIO

from llama_router.config.problems import ConfigError, Problem

_NICENESS = 10


def main() -> int:
    """Do it in what time is left over; what is wrong with the text is an answer too."""
    if sys.platform != "win32":  # there whoever starts it sees to that
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    source = sys.stdin.buffer
    # It comes from our own parent.
    function, arguments = pickle.load(source)  # noqa: S301
    threading.Thread(target=_end_with, args=(source,), daemon=True).start()
    answer: tuple[Any, tuple[Problem, ...]]
    try:
        answer = function(*arguments), ()
    except ConfigError as error:
        answer = None, error.problems
    except Exception:  # noqa: BLE001  # whoever waits for an answer sees that there is none
        return 1
    sys.stdout.buffer.write(pickle.dumps(answer))
    sys.stdout.flush()
    return 0


def _end_with(source: BinaryIO) -> None:
    """End this process when its stdin does."""
    with contextlib.suppress(OSError, ValueError):
        while source.read(4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    # Another thread is reading stdin, for which a regular end would wait.
    os._exit(main())
