"""Where an engine listens, as the config spells it: ``http://$host:$port`` unless it says another.

An address with ``$port`` on this machine is one that the router chose, and whoever answers on it
has to be the engine that was started. Any other one, on another machine or with a port that is
always the same, is the operator's word: who answers there cannot be told, and is believed.
"""

import ipaddress
import re

import msgspec

MAX_PORT = 65535

_ADDRESS = re.compile(
    r"http://(?P<host>\$host|[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>\$port|[0-9]{1,5}))?(?P<path>/[!-~]*)?"
)
_HTTP_PORT = 80
_PORT = "$port"
_HOST = "$host"
_LOCALHOST = "127.0.0.1"


class AddressError(ValueError):
    """An address that is none. The text says what is wrong and what to do."""


class EngineAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine is reached. ``path_prefix`` goes before the path of each request.

    ``is_given``: it is the operator's word, see above.
    """

    host: str
    port: int
    path_prefix: str = ""
    is_given: bool = False


def takes_port(text: str) -> bool:
    """Return whether an address has a place for the port that the router chooses."""
    return not text or _PORT in text


def fill_address(text: str, *, host: str, port: int) -> EngineAddress:
    """Fill in an address; an empty one is ``http://$host:$port``. Raises AddressError."""
    if not text:
        return EngineAddress(host=host, port=port)
    parts = _ADDRESS.fullmatch(text)
    if parts is None or any(sign in (parts["path"] or "") for sign in "?#$"):
        raise AddressError(
            f"address {text!r} is not of the form http://HOST:PORT/PATH; "
            "$host and $port may stand in it"
        )
    said_port = parts["port"] or str(_HTTP_PORT)
    said_host = parts["host"].strip("[]")
    if said_port != _PORT and not 1 <= int(said_port) <= MAX_PORT:
        raise AddressError(f"address {text!r}: the port is not between 1 and {MAX_PORT}")
    name = host if said_host == _HOST else said_host
    if name.lower() == "localhost":
        name = _LOCALHOST
    return EngineAddress(
        host=name,
        port=port if said_port == _PORT else int(said_port),
        path_prefix=(parts["path"] or "").rstrip("/"),
        is_given=said_port != _PORT or not (name == host or _is_loopback(name)),
    )


def fixed_address(text: str) -> str:
    """Return ``HOST:PORT`` of an address whose port is always the same, "" for any other one.

    All names of this machine are one: what listens on one of them is often in the way on another.
    """
    parts = _ADDRESS.fullmatch(text)
    if parts is None or takes_port(text):
        return ""
    host = parts["host"].strip("[]").lower()
    if host in (_HOST, "localhost") or _is_loopback(host) or _is_any(host):
        host = _LOCALHOST
    return f"{host}:{int(parts['port'] or _HTTP_PORT)}"


def fixed_port(text: str) -> int:
    """Return the port of an address on this machine that is always the same, 0 for any other."""
    host, _, port = fixed_address(text).rpartition(":")
    return int(port) if host == _LOCALHOST else 0


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
