import pytest

from llama_router.proxy.routes import (
    RESERVED_SEGMENTS,
    UNVERSIONED_POSTS,
    Route,
    RouteKind,
    classify,
    parse_query,
    takes_slot,
)

CONTROL = Route(RouteKind.CONTROL)
BODY = Route(RouteKind.BODY_MODEL)


def named(*, model: str = "", prefix: str = "", may_load: bool) -> Route:
    return Route(RouteKind.NAMED, model, prefix, may_load)


@pytest.mark.parametrize(
    ("line", "route"),
    [
        ("POST /v1/chat/completions", BODY),
        ("POST /v1/anything", BODY),
        ("POST /v1", CONTROL),
        ("GET /v1/models", CONTROL),
        ("GET /v1/chat/completions", CONTROL),
        ("POST /admin/load", CONTROL),
        ("DELETE /v1/x", CONTROL),
        ("GET /", CONTROL),
        ("OPTIONS *", CONTROL),
        ("OPTIONS /v1/x", CONTROL),
        ("GET /health", Route(RouteKind.ROOT, may_load=False)),
        ("HEAD /slots", Route(RouteKind.ROOT, may_load=False)),
        ("GET /props?autoload=0", CONTROL),
        ("GET /props?model=a", named(model="a", may_load=False)),
        ("GET /props?model=a%2Fb&autoload=true", named(model="a/b", may_load=True)),
        ("GET /props?model=a&model=b", named(model="a", may_load=False)),
        ("GET /a/b:Q/props", named(prefix="a/b:Q/props", may_load=False)),
        ("GET /a%2Fb/health?autoload=1", named(prefix="a/b/health", may_load=True)),
        ("GET /v1/health", CONTROL),
        ("GET /admin/x/props", CONTROL),
        ("GET /%61dmin/x/props", CONTROL),
        ("POST /a/props", CONTROL),
        ("GET /upstream/", CONTROL),
        ("GET /upstream", CONTROL),
        ("GET /upstream/a/x", named(prefix="a/x", may_load=False)),
        ("HEAD /upstream/a/x", named(prefix="a/x", may_load=False)),
        ("OPTIONS /upstream/a/x", named(prefix="a/x", may_load=False)),
        ("GET /upstream/a/x?autoload=1", named(prefix="a/x", may_load=True)),
        ("POST /upstream/a/x", named(prefix="a/x", may_load=True)),
        ("GET /upstream/%ff/x", named(prefix="\ufffd/x", may_load=False)),
        ("GET /upstream/..%2f..%2fetc/x", named(prefix="../../etc/x", may_load=False)),
    ],
)
def test_a_request_is_sent_where_it_belongs(line: str, route: Route) -> None:
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    assert classify(method.encode(), path.encode(), query.encode()) == route


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (b"POST", b"/v1/chat/completions", True),
        (b"POST", b"/completion", True),
        (b"POST", b"/infill", True),
        (b"POST", b"/v1/embeddings", True),
        (b"POST", b"/v1/messages", True),
        (b"POST", b"/v1/never-heard-of", True),
        (b"POST", b"/v1/chat/completions/input_tokens", False),
        (b"POST", b"/tokenize", False),
        (b"POST", b"/apply-template", False),
        (b"GET", b"/slots", False),
        (b"HEAD", b"/", False),
    ],
)
def test_only_reading_and_writing_takes_a_slot(
    method: bytes, path: bytes, *, expected: bool
) -> None:
    assert takes_slot(method, path) is expected


@pytest.mark.parametrize("path", sorted(UNVERSIONED_POSTS))
def test_old_paths_may_name_a_model(path: bytes) -> None:
    assert classify(b"POST", path, b"").kind is RouteKind.BODY_MODEL_OR_ROOT


@pytest.mark.parametrize("segment", sorted(RESERVED_SEGMENTS - {"upstream"}))
def test_the_routers_own_segments_are_no_models(segment: str) -> None:
    assert classify(b"GET", f"/{segment}/x/slots".encode(), b"").kind is RouteKind.CONTROL


def test_of_repeated_arguments_the_first_counts() -> None:
    assert parse_query(b"a=1&a=2&b=&c=%20+") == {"a": "1", "b": "", "c": "  "}


def test_too_many_arguments_are_none() -> None:
    assert parse_query(b"&".join(b"%d=1" % number for number in range(100))) == {}
