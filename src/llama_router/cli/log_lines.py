"""``llama-router logs``: what a model's engines have written, or all engines."""

import os
import sys
from typing import Annotated
from urllib.parse import quote

import typer

from llama_router.cli.asking import address_of
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse
from llama_router.cli.router_client import (
    AddressError,
    ConfigOption,
    RouterClientError,
    TokenOption,
    UrlOption,
    follow,
)

_NOT_FOUND = 404


def logs(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name; none: all engines.")
    ] = "",
    *,
    is_followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Print what engines have written lately; the router's own log is on its stderr."""
    address = address_of(context, config, url, token)
    path = f"/logs/{quote(model)}" if model else "/logs"
    try:
        for line in follow(address, f"{path}?follow=true" if is_followed else path):
            typer.echo(line)
    except AddressError as error:
        refuse(str(error), EXIT_USAGE)
    except RouterClientError as error:
        refuse(str(error), EXIT_USAGE if error.status == _NOT_FOUND else EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read this (head, less) has seen enough; the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return
