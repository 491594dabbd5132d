"""Who may ask: the checks that every request passes before anything else is done with it.

Names in Host are a list, against DNS rebinding; unsafe methods need the same origin or no browser,
against cross-site requests (the Fetch Metadata algorithm, with Origin where it is absent); keys
are compared in constant time.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from llama_router.proxy.caller import ANYBODY, Caller
from llama_router.proxy.errors import AuthenticationError, BadRequestError, ForbiddenError
from llama_router.proxy.head import RequestHead

_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")
# Open without a key, as llama-server has them: what load balancers ask.
_PUBLIC_PATHS = (b"/health", b"/v1/health")
_MAX_CACHED_HOSTS = 1024
_API_HINT = "this router wants an API key: send 'Authorization: Bearer KEY'"
_ADMIN_HINT = "the admin API wants router.admin_token: send 'X-Admin-Token: TOKEN'"


class KeyEntry(Protocol):
    """An API key as the config has it."""

    @property
    def key(self) -> str:
        """The secret."""

    @property
    def name(self) -> str:
        """Its owner's name."""

    @property
    def priority(self) -> int:
        """The higher goes first."""

    @property
    def batch(self) -> bool:
        """Whether all its requests are a batch's."""


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _owner(number: int, entry: KeyEntry | str) -> tuple[bytes, Caller]:
    if isinstance(entry, str):
        return _digest(entry), Caller(f"key {number}")
    return _digest(entry.key), Caller(entry.name, entry.priority, entry.batch)


class Guard:
    """The checks, with what the config says about them."""

    def __init__(
        self,
        *,
        api_keys: Iterable[KeyEntry | str] = (),
        admin_token: str = "",
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._callers = dict(_owner(*entry) for entry in enumerate(api_keys, 1))
        self._api_keys = tuple(self._callers)
        self._admin_keys = (_digest(admin_token),) if admin_token else self._api_keys
        self._admin_hint = _ADMIN_HINT if admin_token else _API_HINT
        self._allowed_hosts = frozenset({"localhost", *(name.lower() for name in allowed_hosts)})
        self._host_verdicts: dict[bytes, bool] = {}

    def check(self, head: RequestHead) -> None:
        """Let the request pass, or raise ForbiddenError or AuthenticationError."""
        if not self._host_is_allowed(head.host):
            raise ForbiddenError(
                "this Host is not known here; add its name to router.allowed_hosts", param="host"
            )
        if head.method not in _SAFE_METHODS:
            self._check_origin(head)
        # Whoever answers will decode the path, so what is asked of it is asked of the decoded one.
        path = unquote_to_bytes(head.path) if b"%" in head.path else head.path
        if path == b"/admin" or path.startswith(b"/admin/"):
            if self._admin_keys:
                self._check_key(head, self._admin_keys, self._admin_hint)
        elif self._api_keys and path not in _PUBLIC_PATHS:
            self._check_key(head, self._api_keys, _API_HINT)

    def check_start(self, head: RequestHead) -> None:
        """Let a request pass that starts an engine, or raise as ``check`` does.

        A safe method does not excuse it from the check of its origin, nor a public path from the
        key.
        """
        self._check_origin(head)
        if self._api_keys:
            self._check_key(head, self._api_keys, _API_HINT)

    def caller_of(self, head: RequestHead) -> Caller:
        """Return whose request this is. Raises BadRequestError for a class that there is not."""
        caller = ANYBODY
        for presented in map(_digest, _presented_keys(head)):
            for digest, owner in self._callers.items():
                if hmac.compare_digest(presented, digest):
                    caller = owner
        wanted = {value.lower() for name, value in head.headers if name == b"x-router-class"}
        if not wanted <= {b"batch", b"interactive"}:
            raise BadRequestError(
                "X-Router-Class must be 'batch' or 'interactive'", param="x-router-class"
            )
        # A key that is for batches cannot talk itself into the other class, nor can a client whose
        # gateway has put it into this one.
        if b"batch" not in wanted:
            return caller
        return msgspec.structs.replace(caller, is_batch=True)

    def is_own_key(self, head: RequestHead) -> bool:
        """Tell whether a key in ``head`` is the router's, and so not for an engine to see."""
        if self._api_keys:
            return True
        if not self._admin_keys:
            return False
        digests = [_digest(key) for key in _all_keys(head)]
        return any(hmac.compare_digest(one, own) for one in digests for own in self._admin_keys)

    def _host_is_allowed(self, host: bytes) -> bool:
        verdict = self._host_verdicts.get(host)
        if verdict is None:
            verdict = self._judge_host(host)
            if len(self._host_verdicts) < _MAX_CACHED_HOSTS:
                self._host_verdicts[host] = verdict
        return verdict

    def _judge_host(self, host: bytes) -> bool:
        if not host:
            # HTTP/1.0 without a Host: no browser sends that.
            return True
        text = host.decode("latin-1").lower()
        if text.startswith("["):
            name, bracket, port = text[1:].partition("]")
            port = port.removeprefix(":")
            if not bracket:
                return False
        else:
            name, _, port = text.partition(":")
        if port and not (port.isascii() and port.isdigit()):
            return False
        if name.removesuffix(".") in self._allowed_hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    @staticmethod
    def _check_origin(head: RequestHead) -> None:
        site = head.get(b"sec-fetch-site")
        if site is not None:
            if site in (b"same-origin", b"none"):
                return
        else:
            origin = head.get(b"origin")
            if origin is None:
                return
            scheme, separator, authority = origin.partition(b"://")
            if separator and scheme in (b"http", b"https") and authority == head.host:
                return
        raise ForbiddenError("a web page of another origin may not do this")

    @staticmethod
    def _check_key(head: RequestHead, digests: tuple[bytes, ...], hint: str) -> None:
        presented = [_digest(key) for key in _presented_keys(head)]
        if not presented:
            raise AuthenticationError(hint)
        # Every pair is compared, so that the time tells nothing about which one was close.
        matches = [hmac.compare_digest(one, own) for one in presented for own in digests]
        if not any(matches):
            raise AuthenticationError(f"the key is not valid here: {hint}")


def _all_keys(head: RequestHead) -> list[bytes]:
    keys = []
    for name, value in head.headers:
        if name == b"x-api-key":
            keys.append(value)
        elif name == b"authorization":
            keys += (value, value.partition(b" ")[2].strip())
    return keys


def _presented_keys(head: RequestHead) -> list[bytes]:
    """Return every key that a request shows: a client may send one for each scope."""
    keys = [head.get(b"x-admin-token"), head.get(b"x-api-key")]
    scheme, _, key = (head.get(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        keys.append(key.strip())
    return [one for one in keys if one]
