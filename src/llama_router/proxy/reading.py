"""Which model a request is for, and what of it the engine gets: at once, or by the inspector."""

from typing import TYPE_CHECKING

import msgspec

from llama_router.proxy.body import Body
from llama_router.proxy.errors import (
    BodyTooLargeError,
    EndpointNotAllowedError,
    IgnoredPathError,
    ModelNotLoadedError,
    RequestError,
)
from llama_router.proxy.gate import Target
from llama_router.proxy.limits import MAX_CONTROL_BODY_BYTES
from llama_router.proxy.peek import QUICK_FORM_BYTES
from llama_router.proxy.prepared import PreparedRequest
from llama_router.proxy.rewriting import Rewritten, rewrite_aside, rewrite_now
from llama_router.proxy.routes import CONTROL, NAMED, ROOT
from llama_router.proxy.targets import (
    find_destination,
    is_ignored,
    is_quick_to_peek,
    peek_body,
    target_of_body,
)

if TYPE_CHECKING:
    from llama_router.proxy.server import Services


class Order(msgspec.Struct, frozen=True, gc=False):
    """What is to be done for a request. ``target`` None: the router itself answers.

    ``rewritten`` goes to the engine in the place of the client's body.
    """

    target: Target | None
    path: bytes
    may_load: bool = True
    wants_stream: bool = False
    keep_alive_s: float | None = None
    rewritten: Rewritten | None = None


def read_now(prepared: PreparedRequest, body: Body, services: "Services") -> Order | None:
    """Return what a request asks for; None if finding out would take long.

    Raises a RequestError.
    """
    kind = prepared.route.kind
    if kind is NAMED or kind is ROOT:
        return _route(prepared, body, services)
    if body.size_bytes > QUICK_FORM_BYTES and not is_quick_to_peek(prepared, body):
        return None
    peek = peek_body(prepared, body)
    target = target_of_body(prepared, peek, services.gate)
    rewrite = target.rewrite
    if rewrite is None or not body.size_bytes:
        # By position: most requests make one of these.
        return Order(target, prepared.head.path, True, peek.stream, peek.keep_alive_s)
    rewritten = rewrite_now(body, prepared.form_type, rewrite, peek, services.budget)
    return None if rewritten is None else _rewritten_order(target, prepared, rewritten)


def refusal(
    error: RequestError, prepared: PreparedRequest, path: bytes, services: "Services"
) -> RequestError:
    """Return what a client is told of the runtime's ``error``."""
    if isinstance(error, ModelNotLoadedError) and is_ignored(
        prepared, path, services.upstream_ignore_paths
    ):
        return IgnoredPathError(error.message)
    return error


async def read_aside(prepared: PreparedRequest, body: Body, services: "Services") -> Order:
    """Do as ``read_now`` does, without holding the event loop."""
    inspector, form_type = services.inspector, prepared.form_type
    peek = await inspector.inspect(body.file or body.data, form_type)
    target = target_of_body(prepared, peek, services.gate)
    rewrite = target.rewrite
    if rewrite is None:
        path = prepared.head.path
        return Order(target, path, wants_stream=peek.stream, keep_alive_s=peek.keep_alive_s)
    rewritten = await rewrite_aside(body, form_type, rewrite, peek, services.budget, inspector)
    return _rewritten_order(target, prepared, rewritten)


def _rewritten_order(target: Target, prepared: PreparedRequest, rewritten: Rewritten) -> Order:
    peek = rewritten.peek
    return Order(
        target,
        prepared.head.path,
        wants_stream=peek.stream,
        keep_alive_s=peek.keep_alive_s,
        rewritten=rewritten,
    )


def _route(prepared: PreparedRequest, body: Body, services: "Services") -> Order:
    found = find_destination(prepared, services.gate)
    if found is None:
        # What is meant for the router at first sight has been held to its limit already.
        if prepared.route.kind is not CONTROL and body.size_bytes > MAX_CONTROL_BODY_BYTES:
            raise BodyTooLargeError(f"the body is larger than {MAX_CONTROL_BODY_BYTES} bytes")
        return Order(None, prepared.head.path)
    if found.target.door is not None:
        # Only a body can be held to the model that it names.
        raise EndpointNotAllowedError(
            f"'{found.target.model}' is on another machine and takes inference requests only"
        )
    is_never = is_ignored(prepared, found.path, services.upstream_ignore_paths)
    return Order(found.target, found.path, found.may_load and not is_never)
