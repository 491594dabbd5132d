"""Asking a router that runs, over its own API; and the options that say where it is."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

    from llama_router.config.schema import Config, RouterSettings

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
# The second is said of a host that is not known, too, which no key would help; then with `param`.
_KEY_CODES = ("invalid_api_key", "forbidden")
_HOW_TO_SAY_WHO = (
    "say who you are with --token, or in LLAMA_ROUTER_TOKEN: the admin token, or a key that opens"
    " this (`llama-router keys add NAME --scope admin` makes one while no router runs)"
)
# What the API refers its clients to, and what does the same here.
_COMMANDS = (
    ("GET /v1/models", "`llama-router models`"),
    ("GET /logs/MODEL", "`llama-router logs MODEL`"),
)
_ELSEWHERE = "or say where the router is with --url, and --token if it wants one"
_VISIBLE_ASCII = re.compile(r"[!-~]+")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The router's config: its address and key."),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="LLAMA_ROUTER_URL",
        help="Another router, such as http://gpu-box:8082.",
    ),
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


class NobodyError(RouterClientError):
    """Nobody listens there."""


class Address(msgspec.Struct, frozen=True):
    """Where a router is, and the admin token or key that it is to see; "" for none."""

    url: str
    token: str = ""


def find_address(
    given: Overrides,
    config_path: Path | None = None,
    url: str | None = None,
    token: str | None = None,
) -> Address:
    """Return the address that is given, or else the config's with its key. Raises AddressError.

    ``given`` is what stands before the command; its address counts for more than the config's. The
    config's token or key is for the config's router only: it is not sent to another ``url``.
    """
    if token and not _VISIBLE_ASCII.fullmatch(token):
        raise AddressError("the token must be visible ASCII characters")
    if url is not None:
        _split(url)
        return Address(url, token or "")
    router = config_of(given, config_path).router
    host = given.host or router.host
    host = _EVERYWHERE.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{given.port or router.port}"
    return Address(address, token or _token_of(router))


def config_of(given: Overrides, config_path: Path | None) -> "Config":
    """Return the config that a router here would run by. Raises AddressError."""
    from llama_router.config.problems import ConfigError

    try:
        return given.read_config(config_path)
    except ConfigError as error:
        raise AddressError(f"{error}\n{_ELSEWHERE}") from None


def _token_of(router: "RouterSettings") -> str:
    """Return what opens the admin API, or else any key; "" if none is written out.

    Of a hashed one only its owner knows what to send. The fewer models a key is for, the less it
    shows.
    """
    if router.admin_token and not _is_hashed(router.admin_token):
        return router.admin_token
    implied = ("inference",) if router.admin_token else ("inference", "admin")
    keys = [entry for entry in router.api_keys if not _is_hashed(entry.key)]
    keys.sort(key=lambda entry: ("admin" not in (entry.scopes or implied), bool(entry.models)))
    return keys[0].key if keys else ""


def _is_hashed(secret: str) -> bool:
    return secret.startswith("sha256:")


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
        raise NobodyError(_nobody(address)) from None
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
        case {"error": {"message": str(message)} as error}:
            for route, command in _COMMANDS:
                message = message.replace(route, command)
            if error.get("code") in _KEY_CODES and error.get("param") is None:
                message = f"{message}\n{_HOW_TO_SAY_WHO}"
            raise RouterClientError(message, status)
    raise RouterClientError(f"what answers at {address.url} is no llama-router", status)


def follow(address: Address, path: str) -> Iterator[str]:
    """Give the lines of an answer that goes on, as they come; an empty one shows that it lives.

    Raises AddressError, RouterClientError.
    """
    from http.client import HTTPException, IncompleteRead

    connection, prefix = _connection(address.url, _FOLLOW_SILENCE_S)
    try:
        connection.request("GET", prefix + path, headers=_credentials(address))
        with connection.getresponse() as answer:
            if answer.status != _OK:
                _read(address, answer.status, answer.read(_MAX_ANSWER_BYTES + 1))
            for line in _lines(answer):
                yield line.decode("utf-8", "replace")
    except ConnectionRefusedError:
        raise NobodyError(_nobody(address)) from None
    except TimeoutError:
        raise RouterClientError(f"the router at {address.url} has gone silent") from None
    except IncompleteRead:
        raise RouterClientError(
            f"the router at {address.url} has cut this off: it ends, or the key was taken back"
        ) from None
    except (OSError, HTTPException) as error:
        raise RouterClientError(f"the router at {address.url} has gone: {error}") from None
    finally:
        connection.close()


def _lines(answer: "HTTPResponse") -> Iterator[bytes]:
    """Give the lines of an answer without their ends, in pieces where they are too long.

    Not by ``readline``, which takes an answer that is cut off for one that has ended.
    """
    rest = b""
    while piece := answer.read1(_MAX_LINE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) >= _MAX_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


def _credentials(address: Address) -> dict[str, str]:
    return {"Authorization": f"Bearer {address.token}"} if address.token else {}


def _nobody(address: Address) -> str:
    return (
        f"no router answers at {address.url}: start one with `llama-router`, or say where it "
        "is with --config, --url or LLAMA_ROUTER_URL"
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
