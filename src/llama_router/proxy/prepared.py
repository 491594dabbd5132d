"""Heads that were seen before are not worked out again.

A client sends the same head with each of its requests, an engine with each of its answers, but for
the body's length. Parsing, checking, routing and rewriting a head is a pure function of its bytes
(and of settings that do not change while the cache lives), so its result is kept under the head's
bytes with the length masked. This is the better part of what a small request costs.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from llama_router.proxy.caller import Caller
from llama_router.proxy.errors import (
    ContentEncodingError,
    ExpectationError,
    ForbiddenError,
    MalformedRequestError,
    PeerLoopError,
    RequestError,
)
from llama_router.proxy.form import is_multipart
from llama_router.proxy.forward import (
    came_through,
    control_fields,
    foreign_fields,
    request_fields,
    response_fields,
    via_line,
)
from llama_router.proxy.guard import Guard
from llama_router.proxy.head import (
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)
from llama_router.proxy.key_limits import KeyLimits, KeyUse
from llama_router.proxy.limits import (
    MAX_CONFIG_BODY_BYTES,
    MAX_CONTROL_BODY_BYTES,
    MAX_JSON_BODY_BYTES,
    MAX_MULTIPART_BODY_BYTES,
)
from llama_router.proxy.routes import UPSTREAM_PREFIX, Route, RouteKind, classify, takes_slot

# Heads of ordinary clients are some hundred bytes; longer ones are not worth the memory.
_MAX_CACHED_HEAD_BYTES = 4096
# More clients than any household has. When full, it starts afresh: no bookkeeping on a hit.
_MAX_CACHED_COUNT = 256
_LENGTH_FIELD = b"\r\nContent-Length: "
_LOWER_LENGTH_FIELD = b"\r\ncontent-length: "
_MAX_LENGTH_DIGITS = 15
# The one order to the router that is as long as a file.
_CONFIG_CHECK = b"/admin/config/validate"

_T = TypeVar("_T")
_Key = bytes | tuple[bytes, bytes, bytes]


class HeadCache(Generic[_T]):
    """Results of ``prepare`` by head. What ``prepare`` raises is raised, and not kept."""

    def __init__(self, prepare: Callable[[bytes], _T]) -> None:
        self._prepare = prepare
        self._entries: dict[_Key, _T] = {}

    def get(self, head: bytes) -> tuple[_T, int | None]:
        """Return the result for ``head``, and its Content-Length if that was masked.

        What is before and behind the digits is the key, so two heads share an entry only if they
        differ in the length alone. A second length field stays in the key, and such a head has no
        result.
        """
        length: int | None = None
        key: _Key = head
        before, field, behind = head.partition(_LENGTH_FIELD)
        if not field:
            before, field, behind = head.partition(_LOWER_LENGTH_FIELD)
        if field:
            digits, _, behind = behind.partition(b"\r\n")
            if digits.isdigit() and len(digits) <= _MAX_LENGTH_DIGITS:
                length = int(digits)
                key = (before, field, behind)
        found = self._entries.get(key)
        if found is None:
            found = self._prepare(head)
            if len(head) <= _MAX_CACHED_HEAD_BYTES:
                if len(self._entries) >= _MAX_CACHED_COUNT:
                    self._entries.clear()
                self._entries[key] = found
        return found, length


class PreparedRequest(msgspec.Struct, frozen=True, gc=False):
    """What follows from a request's head. ``head.content_length`` may be another request's.

    ``form_type`` is the Content-Type if the body is a multipart form. ``takes_slot`` and
    ``path_text`` hold unless the engine gets to see another path than the head's.
    ``line`` and ``fields`` are for the engine: between them go the fields of the upstream, behind
    them the body's length. In the place of ``fields`` a server on another machine gets
    ``foreign_fields``; the control plane gets ``control_fields``, too. ``use`` counts what the
    caller's key asks for, if that is limited.
    """

    head: RequestHead
    route: Route
    line: bytes
    fields: bytes
    has_body: bool
    expects_continue: bool
    form_type: bytes | None
    body_limit_bytes: int
    caller: Caller
    takes_slot: bool
    path_text: str
    foreign_fields: bytes
    control_fields: bytes
    use: KeyUse | None


def request_cache(
    guard: Guard, limits: KeyLimits | None = None, own_name: bytes = b"llama-router"
) -> HeadCache[PreparedRequest]:
    """Return a cache for what clients send; ``prepare`` raises kinds of RequestError.

    ``own_name`` is no other router's: what comes with it has been here before.
    """
    limits = limits or KeyLimits()

    def prepare(data: bytes) -> PreparedRequest:
        head = parse_request_head(data)
        guard.check(head)
        if came_through(head, own_name):
            raise PeerLoopError(
                "this request has come back here through a peer: the router that it leads to has"
                " this one for the model's peer"
            )
        route = classify(head.method, head.path, head.query)
        _check_route(guard, head, route)
        _check_content_fields(head)
        if head.expect and head.expect != b"100-continue":
            raise ExpectationError("the only expectation met is '100-continue'")
        content_type = head.get(b"content-type")
        form_type = content_type if is_multipart(content_type) else None
        caller = guard.caller_of(head)
        return PreparedRequest(
            head=head,
            route=route,
            line=b"%b %b HTTP/1.1\r\n" % (head.method, head.target),
            fields=request_fields(
                head,
                drop_keys=guard.is_own_key(head),
                is_direct=head.path.startswith(UPSTREAM_PREFIX),
            ),
            has_body=head.chunked or head.content_length is not None,
            expects_continue=bool(head.expect) and not head.http_1_0,
            form_type=form_type,
            body_limit_bytes=_body_limit_bytes(route, head.path, form_type),
            caller=caller,
            takes_slot=takes_slot(head.method, head.path),
            path_text=head.path.decode("latin-1"),
            foreign_fields=foreign_fields(head) + via_line(own_name),
            control_fields=control_fields(caller.key, guard.scopes_of(head)),
            use=limits.use_of(caller),
        )

    return HeadCache(prepare)


def _check_route(guard: Guard, head: RequestHead, route: Route) -> None:
    if route.kind is not RouteKind.CONTROL:
        guard.check_inference(head)
    if route.kind is RouteKind.NAMED and route.may_load:
        guard.check_start(head)


def fault_since(prepared: PreparedRequest, guard: Guard) -> RequestError | None:
    """Return why a request that was let pass once would not be any more; None when it would.

    That is so, too, when its key is for other models by now: what it was let see may be none of
    these.
    """
    head, before = prepared.head, prepared.caller
    try:
        guard.check(head)
        _check_route(guard, head, prepared.route)
    except RequestError as error:
        return error
    now = guard.caller_of(head)
    if (now.key, now.models) == (before.key, before.models):
        return None
    return ForbiddenError("what this key is for has been changed; ask again")


def _body_limit_bytes(route: Route, path: bytes, form_type: bytes | None) -> int:
    if route.kind is RouteKind.CONTROL:
        return MAX_CONFIG_BODY_BYTES if path == _CONFIG_CHECK else MAX_CONTROL_BODY_BYTES
    return MAX_MULTIPART_BODY_BYTES if form_type else MAX_JSON_BODY_BYTES


def _check_content_fields(head: RequestHead) -> None:
    types = 0
    for name, value in head.headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise ContentEncodingError("compressed request bodies are not taken")
        types += name == b"content-type"
    if types > 1:
        # The router could read the body as one type, the engine as the other.
        raise MalformedRequestError(f"{types} Content-Type fields in one request")


class PreparedResponse(msgspec.Struct, frozen=True, gc=False):
    """What follows from an answer's head. ``head.content_length`` may be another answer's."""

    head: ResponseHead
    fields: bytes


def _prepare_response(data: bytes) -> PreparedResponse:
    head = parse_response_head(data)
    return PreparedResponse(head, response_fields(head))


# One for all engines: nothing in it depends on settings. Raises ResponseHeadError.
responses: HeadCache[PreparedResponse] = HeadCache(_prepare_response)
