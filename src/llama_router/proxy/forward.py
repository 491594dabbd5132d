"""Heads as they go on: what an engine gets to see of a request, and a client of an answer.

Both are written anew from checked parts. Nothing that speaks of one connection crosses, nothing
that a client could forge, and none of the router's own keys.
"""

from urllib.parse import quote

from llama_router.proxy.head import HOP_BY_HOP, RequestHead, ResponseHead

_REQUEST_DROPS = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"cookie",
    b"forwarded",
    b"x-real-ip",
    b"x-admin-token",
    b"x-router-class",
    b"x-router-key",
    b"x-router-scopes",
}
_PLAIN_IN_FIELDS = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_KEY_FIELDS = frozenset({b"authorization", b"x-api-key"})
_ENCODING_FIELDS = frozenset({b"accept-encoding"})
_FORGEABLE_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-llama-router-")
# Of what a client says to this router, nothing that could be a key or that tells of its user is for
# somebody else's server.
_FOREIGN_DROPS = (
    _REQUEST_DROPS
    | _ENCODING_FIELDS
    | _KEY_FIELDS
    | {b"api-key", b"x-goog-api-key", b"origin", b"referer"}
)
_FOREIGN_DROP_PREFIXES = (*_FORGEABLE_PREFIXES, b"sec-")
_RESPONSE_DROPS = HOP_BY_HOP | {
    b"content-length",
    b"set-cookie",
    # Orders to a web server in front of the router, as x-accel-… to nginx: which file to send.
    b"x-sendfile",
    # A remote server's, of its own address.
    b"alt-svc",
    b"strict-transport-security",
}
_RESPONSE_DROP_PREFIXES = (b"access-control-", b"x-accel-")


def _named_in_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            # A second Connection field would be an odd thing; its names join in.
            return frozenset(
                token.strip().lower()
                for field, tokens in headers
                if field == b"connection"
                for token in tokens.split(b",")
            )
    return frozenset()


def _kept(
    headers: list[tuple[bytes, bytes]], drops: frozenset[bytes], drop_prefixes: tuple[bytes, ...]
) -> list[bytes]:
    """Return the parts of all lines but of those fields, and of what belongs to one connection."""
    parts: list[bytes] = []
    hidden = _named_in_connection(headers)
    for name, value in headers:
        if name not in drops and name not in hidden and not name.startswith(drop_prefixes):
            parts += (name, b": ", value, b"\r\n")
    return parts


def request_fields(head: RequestHead, *, drop_keys: bool, is_direct: bool = False) -> bytes:
    """Return the lines of a request's head that an engine gets to see.

    ``drop_keys``: whether the client's key is one of the router's, and so nobody else's business.
    ``is_direct``: whether the client talks to the engine's own pages, which may only be there in
    compressed form. Elsewhere compression gains nothing, and no error event could follow it.
    """
    drops = _REQUEST_DROPS if is_direct else _REQUEST_DROPS | _ENCODING_FIELDS
    return b"".join(
        _kept(head.headers, drops | _KEY_FIELDS if drop_keys else drops, _FORGEABLE_PREFIXES)
    )


def foreign_fields(head: RequestHead) -> bytes:
    """Return the lines of a request's head that a server on another machine gets to see."""
    return b"".join(_kept(head.headers, _FOREIGN_DROPS, _FOREIGN_DROP_PREFIXES))


def via_line(own_name: bytes) -> bytes:
    """Return the line by which a request is known that has come round (RFC 9110, section 7.6.3)."""
    return b"via: 1.1 %b\r\n" % own_name


def came_through(head: RequestHead, own_name: bytes) -> bool:
    """Tell whether a request has been sent on by the router of that name before."""
    return any(name == b"via" and own_name in value for name, value in head.headers)


def control_fields(key: str, scopes: tuple[str, ...]) -> bytes:
    """Return the lines that tell the control plane who asks, and what their keys open.

    The key's name is percent-encoded as far as it is not plain ASCII.
    """
    name = quote(key, safe=_PLAIN_IN_FIELDS).encode()
    return b"x-router-key: %b\r\nx-router-scopes: %b\r\n" % (name, ",".join(scopes).encode())


def response_fields(head: ResponseHead) -> bytes:
    """Return the status line and the fields of an answer that a client gets to see."""
    parts = [b"HTTP/1.1 %d " % head.status, head.reason, b"\r\n"]
    parts += _kept(head.headers, _RESPONSE_DROPS, _RESPONSE_DROP_PREFIXES)
    if head.is_event_stream:
        # nginx and its kin would collect a stream before they pass it on.
        parts.append(b"x-accel-buffering: no\r\n")
    return b"".join(parts)
