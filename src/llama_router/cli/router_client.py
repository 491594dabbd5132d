"""Asking a router that runs, over its own API; and the options that say where it is."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from http.client import HTTPConnection

# Questions never wait for an engine; the machine may be busy with one.
_TIMEOUT_S = 15.0
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_SCHEMES = ("http", "https")
# Where a router that listens everywhere is on its own machine.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not to listen on
_OK = 200
_VISIBLE_ASCII = re.compile(r"[!-~]+")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The router's config: its address and key."),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Another router, such as http://gpu-box:8082."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="LLAMA_ROUTER_TOKEN",
        help="Admin token or key, if it is not the config's.",
    ),
]


class AddressError(Exception):
    """Where the router is cannot be told: a config or a URL that cannot be used."""


class RouterClientError(Exception):
    """The router did not give what was asked for; ``status`` is its answer's, 0 if none came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Address(msgspec.Struct, frozen=True):
    """Where a router is and what it wants to see.

    ``token`` is the admin's or a key, ``key`` what else it takes to be let in beside an admin token
    that opens nothing but the admin API. Both are empty for none.
    """

    url: str
    token: str = ""
    key: str = ""


def find_address(
    given: Overrides,
    config_path: Path | None = None,
    url: str | None = None,
    token: str | None = None,
) -> Address:
    """Return the address that is given, or else the config's with its key. Raises AddressError.

    ``given`` is what stands before the command; its address counts for more than the config's. The
    config's key is for the config's router only: it is not sent to another ``url``.
    """
    if token and not _VISIBLE_ASCII.fullmatch(token):
        raise AddressError("the token must be visible ASCII characters")
    if url is not None:
        _split(url)
        return Address(url, token or "")
    from llama_router.config.defaults import default_path
    from llama_router.config.load import load
    from llama_router.config.problems import ConfigError
    from llama_router.config.schema import Config

    try:
        chosen = config_path or given.config_path
        path = chosen or default_path(sys.platform, os.environ, Path.home()).path
        config = load(path).config if chosen is not None or path.exists() else Config()
    except ConfigError as error:
        raise AddressError(str(error)) from None
    router = config.router
    host = given.host or router.host
    host = _EVERYWHERE.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    keys = [entry.key for entry in router.api_keys]
    address = f"http://{shown}:{given.port or router.port}"
    if token:
        return Address(address, token)
    key = keys[0] if keys else ""
    return Address(address, router.admin_token or key, key if router.admin_token else "")


def ask(address: Address, method: str, path: str, content: object = None) -> Any:  # noqa: ANN401 - JSON
    """Return what the router answers, read as JSON. Raises AddressError, RouterClientError."""
    # Only here: every other command starts faster without it.
    from http.client import HTTPException

    connection, prefix = _connection(address.url)
    body = None if content is None else json.dumps(content).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    if address.token:
        headers["Authorization"] = f"Bearer {address.token}"
    if address.key:
        headers["X-Api-Key"] = address.key
    try:
        connection.request(method, prefix + path, body, headers)
        with connection.getresponse() as answer:
            status, data = answer.status, answer.read(_MAX_ANSWER_BYTES + 1)
    except ConnectionRefusedError:
        raise RouterClientError(
            f"no router answers at {address.url}: start one with `llama-router`, or say where it "
            "is with --config or --url"
        ) from None
    except TimeoutError:
        raise RouterClientError(
            f"the router at {address.url} did not answer within {_TIMEOUT_S:g} s"
        ) from None
    except (OSError, HTTPException) as error:
        raise RouterClientError(f"{address.url} cannot be asked: {error}") from None
    finally:
        connection.close()
    return _read(address, status, data)


def _read(address: Address, status: int, data: bytes) -> Any:  # noqa: ANN401 - JSON
    # One byte more than the most was read: such an answer is cut, and no JSON any more.
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise RouterClientError(f"what answers at {address.url} is no llama-router") from None
    if status == _OK:
        return found
    match found:
        case {"error": {"message": str(message)}}:
            raise RouterClientError(message, status)
    raise RouterClientError(f"what answers at {address.url} is no llama-router", status)


def _connection(url: str) -> "tuple[HTTPConnection, str]":
    """Return a connection that is not open yet, and what paths begin with. Raises AddressError."""
    from http.client import HTTPConnection, HTTPSConnection

    scheme, host, port, prefix = _split(url)
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    return kind(host, port, timeout=_TIMEOUT_S), prefix


def _split(url: str) -> tuple[str, str, int | None, str]:
    """Take a URL apart. Raises AddressError."""
    refused = AddressError(f"'{url}' is no address; write it as http://127.0.0.1:8082")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refused from None
    if parts.scheme not in _SCHEMES or not host or not _VISIBLE_ASCII.fullmatch(url):
        raise refused
    return parts.scheme, host, port, parts.path.rstrip("/").removesuffix("/v1")
