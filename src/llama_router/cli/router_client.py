"""Asking a router that runs, over its own API; and the options that say where it is."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
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
# Answers that go on are kept alive by the router every few seconds, or have an engine's lines.
_FOLLOW_SILENCE_S = 24 * 3600.0
_MAX_LINE_BYTES = 1024 * 1024
_SCHEMES = ("http", "https")
# Where a router that listens everywhere is on its own machine.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not to listen on
_OK = 200
# Also: created, accepted.
_DONE = (_OK, 201, 202)
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


def ask(
    address: Address,
    method: str,
    path: str,
    content: object = None,
    *,
    timeout_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401 - JSON
    """Return what the router answers, read as JSON. Raises AddressError, RouterClientError.

    ``timeout_s``: longest silence; None: that of questions which wait for no engine.
    """
    # Only here: every other command starts faster without it.
    from http.client import HTTPException

    timeout_s = timeout_s or _TIMEOUT_S
    connection, prefix = _connection(address.url, timeout_s)
    body = None if content is None else json.dumps(content).encode()
    fields = {**_credentials(address), **(headers or {})}
    if body is not None:
        fields["Content-Type"] = "application/json"
    try:
        connection.request(method, prefix + path, body, fields)
        with connection.getresponse() as answer:
            status, data = answer.status, answer.read(_MAX_ANSWER_BYTES + 1)
    except ConnectionRefusedError:
        raise RouterClientError(_nobody(address)) from None
    except TimeoutError:
        raise RouterClientError(
            f"the router at {address.url} did not answer within {timeout_s:g} s"
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
    if status in _DONE:
        return found
    match found:
        case {"error": {"message": str(message)}}:
            raise RouterClientError(message, status)
    raise RouterClientError(f"what answers at {address.url} is no llama-router", status)


def follow(address: Address, path: str) -> Iterator[str]:
    """Give the lines of an answer that goes on, as they come; an empty one shows that it lives.

    Raises AddressError, RouterClientError.
    """
    from http.client import HTTPException

    connection, prefix = _connection(address.url, _FOLLOW_SILENCE_S)
    try:
        connection.request("GET", prefix + path, headers=_credentials(address))
        with connection.getresponse() as answer:
            if answer.status != _OK:
                _read(address, answer.status, answer.read(_MAX_ANSWER_BYTES + 1))
            while line := answer.readline(_MAX_LINE_BYTES):
                yield line.decode("utf-8", "replace").rstrip("\n")
    except ConnectionRefusedError:
        raise RouterClientError(_nobody(address)) from None
    except TimeoutError:
        raise RouterClientError(f"the router at {address.url} has gone silent") from None
    except (OSError, HTTPException) as error:
        raise RouterClientError(f"the router at {address.url} has gone: {error}") from None
    finally:
        connection.close()


def _credentials(address: Address) -> dict[str, str]:
    fields = {}
    if address.token:
        fields["Authorization"] = f"Bearer {address.token}"
    if address.key:
        fields["X-Api-Key"] = address.key
    return fields


def _nobody(address: Address) -> str:
    return (
        f"no router answers at {address.url}: start one with `llama-router`, or say where it "
        "is with --config or --url"
    )


def _connection(url: str, timeout_s: float) -> "tuple[HTTPConnection, str]":
    """Return a connection that is not open yet, and what paths begin with. Raises AddressError."""
    from http.client import HTTPConnection, HTTPSConnection

    scheme, host, port, prefix = _split(url)
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    return kind(host, port, timeout=timeout_s), prefix


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
