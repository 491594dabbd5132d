"""Heads as they go on: what an engine gets to see of a request, and a client of an answer.

Both are written anew from checked parts. Nothing that speaks of one connection crosses, nothing
that a client could forge, and none of the router's own keys.
"""

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
}
_KEY_FIELDS = frozenset({b"authorization", b"x-api-key"})
_FORGEABLE_PREFIXES = (b"proxy-", b"x-forwarded-", b"x-llama-router-")
_RESPONSE_DROPS = HOP_BY_HOP | {b"content-length", b"x-accel-buffering", b"set-cookie"}


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


def request_fields(head: RequestHead, *, drop_keys: bool, is_direct: bool = False) -> bytes:
    """Return the lines of a request's head that an engine gets to see.

    ``drop_keys``: whether the client's key is one of the router's, and so nobody else's business.
    ``is_direct``: whether the client talks to the engine's own pages, which may only be there in
    compressed form. Elsewhere compression gains nothing, and no error event could follow it.
    """
    parts: list[bytes] = []
    hidden = _named_in_connection(head.headers)
    for name, value in head.headers:
        if (
            name in _REQUEST_DROPS
            or name in hidden
            or name.startswith(_FORGEABLE_PREFIXES)
            or (drop_keys and name in _KEY_FIELDS)
            or (name == b"accept-encoding" and not is_direct)
        ):
            continue
        parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def response_fields(head: ResponseHead) -> bytes:
    """Return the status line and the fields of an answer that a client gets to see."""
    parts = [b"HTTP/1.1 %d " % head.status, head.reason, b"\r\n"]
    hidden = _named_in_connection(head.headers)
    for name, value in head.headers:
        if name in _RESPONSE_DROPS or name in hidden or name.startswith(b"access-control-"):
            continue
        parts += (name, b": ", value, b"\r\n")
    if head.is_event_stream:
        # nginx and its kin would collect a stream before they pass it on.
        parts.append(b"x-accel-buffering: no\r\n")
    return b"".join(parts)
