"""Which model a request is for, and what its engine is asked."""

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

import msgspec

from llama_router.proxy import peek
from llama_router.proxy.body import Body
from llama_router.proxy.errors import (
    BadRequestError,
    ModelNotFoundError,
    NoModelsRunningError,
    RequestError,
)
from llama_router.proxy.gate import Gate, Target
from llama_router.proxy.prepared import PreparedRequest
from llama_router.proxy.routes import (
    BODY_MODEL,
    BODY_MODEL_OR_ROOT,
    PER_MODEL_TAILS,
    ROOT,
    UPSTREAM_PREFIX,
    Route,
)

# RFC 3986, section 3.3.
_PLAIN_IN_PATHS = "/:@!$&'()*+,;=~"


class Destination(msgspec.Struct, frozen=True):
    """A model, the path that its engine gets to see, and whether the engine may be started."""

    target: Target
    path: bytes
    may_load: bool


def is_quick_to_peek(prepared: PreparedRequest, body: Body) -> bool:
    """Tell whether ``peek_body`` can be called, without holding the event loop for long."""
    return body.file is None and peek.is_quick_to_peek(body.data, prepared.form_type)


def peek_body(prepared: PreparedRequest, body: Body) -> peek.Peek:
    """Return what a body in memory says of its model. Raises BadRequestError."""
    if not body.size_bytes and prepared.route.kind is BODY_MODEL_OR_ROOT:
        return peek.Peek(None, stream=False)
    form_type = prepared.form_type
    if form_type is None:
        return peek.peek_json(body.data)
    return peek.peek_multipart(body.data, form_type)


def find_destination(prepared: PreparedRequest, gate: Gate) -> Destination | None:
    """Return where a request goes whose model is in its path or query, or is the root target.

    None: to the control plane. Raises a RequestError when there is no such model.
    """
    route = prepared.route
    path = prepared.head.path
    if route.kind is ROOT:
        return Destination(_root_target(prepared, gate), path, may_load=False)
    if route.model:
        return Destination(_resolve(route.model, prepared, gate), path, route.may_load)
    target = _find_prefix(route.prefix, prepared, gate)
    is_direct = path.startswith(UPSTREAM_PREFIX)
    if not is_direct and (target is None or target.rest not in PER_MODEL_TAILS):
        return None
    if target is None:
        raise ModelNotFoundError("no model's id stands at the beginning of this path")
    path = _path_behind(path, route, target, len(UPSTREAM_PREFIX) if is_direct else 1)
    return Destination(target, path, route.may_load or _is_navigation(prepared))


def is_ignored(prepared: PreparedRequest, path: bytes, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Tell whether this request, by its path below a model's /upstream, never loads the model."""
    if not prepared.head.path.startswith(UPSTREAM_PREFIX):
        return False
    text = unquote_to_bytes(path).decode("utf-8", "replace")
    return any(pattern.search(text) for pattern in patterns)


def _resolve(name: str, prepared: PreparedRequest, gate: Gate) -> Target:
    """Return the target of that name. To a key that may not use it, it is as if not there."""
    caller = prepared.caller
    if not caller.models:
        return gate.resolve(name)
    try:
        target = gate.resolve(name)
    except RequestError:
        # What is wrong with it would tell that it is there.
        target = None
    if target is None or not caller.may_use(target.model, target.name):
        raise ModelNotFoundError(
            f"there is no model '{name}' for the key '{caller.key}'", param="model"
        )
    return target


def _find_prefix(prefix: str, prepared: PreparedRequest, gate: Gate) -> Target | None:
    caller = prepared.caller
    if not caller.models:
        return gate.resolve_prefix(prefix)
    try:
        target = gate.resolve_prefix(prefix)
    except RequestError:
        return None
    return target if target is None or caller.may_use(target.model, target.name) else None


def _root_target(prepared: PreparedRequest, gate: Gate) -> Target:
    """Return the target of questions without a model. Raises NoModelsRunningError."""
    model = gate.root_target()
    if model is None or not prepared.caller.may_use(model):
        raise NoModelsRunningError
    try:
        target = gate.resolve(model)
    except RequestError:
        return Target(model)
    # Its name may lead elsewhere by now.
    return target if target.model == model else Target(model)


def _path_behind(path: bytes, route: Route, target: Target, start: int) -> bytes:
    """Return what follows the model's id in the path, as it was written by the client."""
    end = start
    wanted = route.prefix[: len(route.prefix) - len(target.rest)].encode()
    while end < len(path):
        end = path.find(b"/", end + 1)
        if end < 0:
            break
        if unquote_to_bytes(path[start:end]) == wanted:
            return path[end:]
    # Nothing follows, or the slash that does was written as %2F.
    return quote(target.rest or "/", safe=_PLAIN_IN_PATHS).encode()


def _is_navigation(prepared: PreparedRequest) -> bool:
    """Tell whether a person has opened this address in a browser, from here or by hand."""
    head = prepared.head
    return head.get(b"sec-fetch-mode") == b"navigate" and head.get(b"sec-fetch-site") in (
        b"same-origin",
        b"none",
    )


def target_of_body(prepared: PreparedRequest, found: peek.Peek, gate: Gate) -> Target:
    """Return the model that a body names, or that its route means without one.

    Raises a RequestError when there is none.
    """
    if found.model is not None:
        if not prepared.caller.models:
            return gate.resolve(found.model)
        return _resolve(found.model, prepared, gate)
    if prepared.route.kind is BODY_MODEL:
        raise BadRequestError("the request names no model: give 'model' in the body", param="model")
    return _root_target(prepared, gate)
