"""Where a request is meant to go, as far as its method, path and query tell.

Ids of models contain ``/``, so a path that begins with one is only understood with the catalogue;
the first segments that the router itself uses are never read as a model.
"""

from enum import Enum
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

# First path segments that are never a model's.
RESERVED_SEGMENTS = frozenset(
    {"", "v1", "api", "admin", "upstream", "logs", "health", "props", "slots", "models", "metrics"}
    | {"ui", "docs", "openapi.json", "favicon.ico", "robots.txt", "tools", "cors-proxy"}
)

# llama.cpp, tools/server/server.cpp: POST routes without a version prefix that a loaded model
# answers. They may name a model; without one they mean the root target.
UNVERSIONED_POSTS = frozenset(
    {
        b"/completion",
        b"/completions",
        b"/chat/completions",
        b"/chat/completions/input_tokens",
        b"/responses",
        b"/responses/input_tokens",
        b"/audio/transcriptions",
        b"/infill",
        b"/embedding",
        b"/embeddings",
        b"/rerank",
        b"/reranking",
        b"/tokenize",
        b"/detokenize",
        b"/apply-template",
        b"/lora-adapters",
        b"/props",
    }
)
# What an engine answers beside its slots, as fast as it can read: no generation, no embedding.
_SLOTLESS_POSTS = frozenset(
    {
        b"/tokenize",
        b"/detokenize",
        b"/apply-template",
        b"/chat/completions/input_tokens",
        b"/responses/input_tokens",
        b"/messages/count_tokens",
        b"/lora-adapters",
        b"/props",
    }
)
_ROOT_GETS = frozenset({b"/props", b"/slots", b"/health", b"/lora-adapters"})
# Behind a model's id; whatever else begins with one is the control plane's.
PER_MODEL_TAILS = ("/props", "/slots", "/health")
UPSTREAM_PREFIX = b"/upstream/"


class RouteKind(Enum):
    """Who answers, and how the model is found."""

    # The router itself, through its control plane.
    CONTROL = "control"
    # An engine; the body must name the model.
    BODY_MODEL = "body_model"
    # An engine; the body may name the model, else the root target is meant.
    BODY_MODEL_OR_ROOT = "body_model_or_root"
    # An engine; the root target is meant.
    ROOT = "root"
    # An engine; ``model`` is in the path or the query.
    NAMED = "named"


# Looking a member up by name costs many times the comparison, and each request does it.
CONTROL, BODY_MODEL, BODY_MODEL_OR_ROOT, ROOT, NAMED = RouteKind


class Route(msgspec.Struct, frozen=True):
    """Where to. ``prefix`` is decoded text that begins with a model's id, for NAMED by path."""

    kind: RouteKind
    model: str = ""
    prefix: str = ""
    # Whether the request may start an engine.
    may_load: bool = True


_TO_CONTROL = Route(CONTROL)
_BY_BODY = Route(BODY_MODEL)
_BY_BODY_OR_ROOT = Route(BODY_MODEL_OR_ROOT)
_READS = (b"GET", b"HEAD")
# A browser sends OPTIONS for any page that asks it to (a CORS preflight).
_SAFE = (*_READS, b"OPTIONS")


def classify(method: bytes, path: bytes, query: bytes) -> Route:
    """Return the route of a request. ``path`` is still percent-encoded."""
    if method == b"POST":
        if path.startswith(b"/v1/"):
            return _BY_BODY
        if path in UNVERSIONED_POSTS:
            return _BY_BODY_OR_ROOT
    if path.startswith(UPSTREAM_PREFIX):
        prefix = _decode(path[len(UPSTREAM_PREFIX) :])
        if not prefix:
            return _TO_CONTROL
        return Route(
            NAMED,
            prefix=prefix,
            may_load=method not in _SAFE or _wants_autoload(query),
        )
    if method in _READS:
        return _classify_read(path, query)
    return _TO_CONTROL


def takes_slot(method: bytes, path: bytes) -> bool:
    """Tell whether an engine needs one of its slots for this. ``path`` is the engine's own.

    What is not known to need none is taken to need one.
    """
    return method not in _SAFE and path.removeprefix(b"/v1") not in _SLOTLESS_POSTS


def _classify_read(path: bytes, query: bytes) -> Route:
    if path in _ROOT_GETS:
        arguments = parse_query(query)
        may_load = arguments.get("autoload") in ("true", "1")
        if "model" in arguments:
            return Route(NAMED, model=arguments["model"], may_load=may_load)
        if path == b"/props" and "autoload" in arguments:
            # llama-server's router mode answers this for itself; its web UI asks so.
            return _TO_CONTROL
        return Route(ROOT, may_load=False)
    decoded = _decode(path)
    if decoded.endswith(PER_MODEL_TAILS) and decoded[1:].split("/", 1)[0] not in RESERVED_SEGMENTS:
        return Route(NAMED, prefix=decoded[1:], may_load=_wants_autoload(query))
    return _TO_CONTROL


def _wants_autoload(query: bytes) -> bool:
    return bool(query) and parse_query(query).get("autoload") in ("true", "1")


def parse_query(query: bytes) -> dict[str, str]:
    """Return the arguments of a query; of repeated ones the first."""
    arguments: dict[str, str] = {}
    # The target's limit bounds the length; the count is bounded against quadratic surprises.
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        return arguments
    for key, value in pairs:
        arguments.setdefault(key, value)
    return arguments


def _decode(path: bytes) -> str:
    # An id is text; bytes that are none match no id, which is all that has to follow.
    return unquote_to_bytes(path).decode("utf-8", "replace")
