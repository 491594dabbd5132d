"""Who may ask: the checks that every request passes before anything else is done with it.

Names in Host are a list, against DNS rebinding; unsafe methods need the same origin or no browser,
against cross-site requests (the Fetch Metadata algorithm, with Origin where it is absent); keys
are compared in constant time.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

import msgspec

from llama_router.proxy.caller import ADMIN, ALL_SCOPES, ANYBODY, INFERENCE, Caller
from llama_router.proxy.errors import AuthenticationError, BadRequestError, ForbiddenError
from llama_router.proxy.head import RequestHead
from llama_router.proxy.keys import ApiKey, KeyEntry, KeyRing, KeyRule, digest_in_config, rule_of

_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")
# Open without a key, as llama-server has them: what load balancers ask.
_PUBLIC_PATHS = (b"/health", b"/v1/health")
# A browser opens this page before anybody has typed a key into it, and there is nothing in it: what
# it shows it asks for with that key.
_ADMIN_PAGES = (b"/admin/docs", b"/admin/docs/docs.js", b"/admin/docs/docs.css")
_MAX_CACHED_HOSTS = 1024
_API_HINT = "this router wants an API key: send 'Authorization: Bearer KEY'"
_ADMIN_HINT = "the admin API wants router.admin_token: send 'X-Admin-Token: TOKEN'"


def _rule(number: int, entry: KeyRule | KeyEntry | str) -> KeyRule:
    if isinstance(entry, str):
        return ApiKey(digest=digest_in_config(entry), name=f"key {number}")
    return entry if isinstance(entry, KeyRule) else rule_of(entry)


class Guard:
    """The checks, with what the config says about them."""

    def __init__(
        self,
        *,
        api_keys: Iterable[KeyRule | KeyEntry | str] = (),
        admin_token: str = "",
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._keys = KeyRing([_rule(*entry) for entry in enumerate(api_keys, 1)], admin_token)
        self._admin_hint = _ADMIN_HINT if admin_token else _API_HINT
        self._allowed_hosts = frozenset({"localhost", *(name.lower() for name in allowed_hosts)})
        self._host_verdicts: dict[bytes, bool] = {}

    @property
    def callers(self) -> tuple[Caller, ...]:
        """Those whom the keys stand for."""
        return self._keys.callers

    def check(self, head: RequestHead) -> None:
        """Let the request pass, or raise ForbiddenError or AuthenticationError.

        Behind this it may talk to the router itself; see ``check_inference``.
        """
        if not self._host_is_allowed(head.host):
            raise ForbiddenError(
                "this Host is not known here; add its name to router.allowed_hosts", param="host"
            )
        if head.method not in _SAFE_METHODS:
            self._check_origin(head)
        path = _decoded_path(head)
        if path == b"/admin" or path.startswith(b"/admin/"):
            needs_key = self._keys.has_keys or self._keys.has_token
            if needs_key and path not in _ADMIN_PAGES:
                self._check_scopes(head, (ADMIN,), self._admin_hint)
        elif self._keys.has_keys and path not in _PUBLIC_PATHS:
            self._check_scopes(head, ALL_SCOPES, _API_HINT)

    def check_inference(self, head: RequestHead) -> None:
        """Let a request pass that ``check`` has let pass and that is for an engine, or raise."""
        if self._keys.has_keys and _decoded_path(head) not in _PUBLIC_PATHS:
            self._check_scopes(head, (INFERENCE,), _API_HINT)

    def check_start(self, head: RequestHead) -> None:
        """Let a request pass that starts an engine, or raise as ``check`` does.

        A safe method does not excuse it from the check of its origin, nor a public path from the
        key.
        """
        self._check_origin(head)
        if self._keys.has_keys:
            self._check_scopes(head, (INFERENCE,), _API_HINT)

    def caller_of(self, head: RequestHead) -> Caller:
        """Return whose request this is. Raises BadRequestError for a class that there is not."""
        caller = ANYBODY
        for owner in self._keys.owners(_presented_keys(head)):
            # A client may send a key for each scope.
            if caller is ANYBODY or INFERENCE in owner.scopes:
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

    def scopes_of(self, head: RequestHead) -> tuple[str, ...]:
        """Return what the keys of a request open, as far as keys are asked for."""
        keys, presented = self._keys, _presented_keys(head)
        scopes = {scope for owner in keys.owners(presented) for scope in owner.scopes}
        if not keys.has_keys:
            scopes.add(INFERENCE)
        if keys.has_admin_token(presented) or not (keys.has_keys or keys.has_token):
            scopes.add(ADMIN)
        return tuple(scope for scope in ALL_SCOPES if scope in scopes)

    def is_own_key(self, head: RequestHead) -> bool:
        """Tell whether a key in ``head`` is the router's, and so not for an engine to see."""
        return self._keys.has_keys or self._keys.has_admin_token(_all_keys(head))

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

    def _check_scopes(self, head: RequestHead, wanted: tuple[str, ...], hint: str) -> None:
        """Raise unless a key of the request opens one of these scopes."""
        presented = _presented_keys(head)
        if not presented:
            raise AuthenticationError(hint)
        is_admin = self._keys.has_admin_token(presented)
        owners = self._keys.owners(presented)
        if is_admin and ADMIN in wanted:
            return
        if any(scope in owner.scopes for owner in owners for scope in wanted):
            return
        if owners or is_admin:
            token = "router.admin_token, or " if ADMIN in wanted and self._keys.has_token else ""
            raise ForbiddenError(
                f"this key does not open '{wanted[0]}'; that takes {token}one with this scope"
            )
        raise AuthenticationError(f"the key is not valid here: {hint}")


def _decoded_path(head: RequestHead) -> bytes:
    # Whoever answers will decode the path, so what is asked of it is asked of the decoded one.
    return unquote_to_bytes(head.path) if b"%" in head.path else head.path


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
