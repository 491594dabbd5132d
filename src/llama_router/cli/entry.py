"""Where the program begins: before anything large is imported."""

import signal
import sys

_EXIT_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line."""
    # Ctrl-C while modules are read, for half a second on a slow disk, ends the program as it ends
    # others, and not in a traceback through them. Who has it ignored (nohup) is not meant.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llama_router.cli import main as command_line

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command_line.main()
    except KeyboardInterrupt:
        # Before typer has begun with the command, or after it: it would end it in the same way.
        sys.exit(_EXIT_INTERRUPTED)
