"""What a command tells people beside what it prints, and what it ends with."""

from typing import NoReturn

import typer

from llama_router.cli.logs import escaped

EXIT_FAILED = 1
# Wrong usage: a config or an address that cannot be used, a model that is not known.
EXIT_USAGE = 2


def tell(message: str) -> None:
    """Print a line to stderr, and whose it is."""
    typer.echo(f"llama-router: {escaped(message)}", err=True)


def refuse(message: str, status: int) -> NoReturn:
    """End the command with a message on stderr, which may have several lines."""
    for line in message.splitlines():
        tell(line)
    raise typer.Exit(status)
