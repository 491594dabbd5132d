import pytest

from llama_router.proxy.guard import Guard
from llama_router.proxy.outgoing import request_head
from llama_router.proxy.prepared import PreparedRequest, request_cache
from llama_router.proxy.upstream import Upstream

pytestmark = pytest.mark.asyncio
TYPE = b"multipart/form-data; boundary=b"


def prepared(fields: bytes = b"", line: bytes = b"POST /v1/x?q=1") -> PreparedRequest:
    data = line + b" HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n" + fields + b"\r\n"
    return request_cache(Guard()).get(data)[0]


def upstream(**rest: object) -> Upstream:
    return Upstream(host="far.example", port=443, connect_timeout_s=1.0, **rest)  # type: ignore[arg-type]


async def test_an_engine_gets_the_requests_own_line_and_fields() -> None:
    request = prepared(b"x: y\r\nauthorization: Bearer k\r\n")
    assert request_head(request, request.head.path, upstream(), 7) == (
        b"POST /v1/x?q=1 HTTP/1.1\r\nhost: far.example:443\r\nx: y\r\nauthorization: Bearer k\r\n"
        b"content-length: 7\r\n\r\n"
    )
    assert request_head(request, b"/x", upstream(), 7).startswith(b"POST /x?q=1 HTTP/1.1\r\n")


async def test_another_machine_gets_its_own_path_and_no_key() -> None:
    request = prepared(b"x: y\r\nauthorization: Bearer k\r\n")
    far = upstream(is_remote=True, path_prefix=b"/api", extra_head=b"authorization: Bearer z\r\n")
    assert request_head(request, request.head.path, far, 0) == (
        b"POST /api/v1/x?q=1 HTTP/1.1\r\nhost: far.example:443\r\nauthorization: Bearer z\r\n"
        b"x: y\r\nvia: 1.1 llama-router\r\ncontent-length: 0\r\n\r\n"
    )


async def test_the_router_itself_is_told_who_asks() -> None:
    request = prepared()
    head = request_head(request, request.head.path, upstream(), 0, is_own=True)
    assert b"\r\nx-router-key: \r\nx-router-scopes: inference,admin\r\n" in head


@pytest.mark.parametrize("is_remote", [False, True])
async def test_a_form_that_is_framed_anew_says_so(*, is_remote: bool) -> None:
    request = prepared(b"x-content-type: %b\r\nContent-Type: %b\r\nz: 1\r\n" % (TYPE, TYPE))
    head = request_head(
        request, request.head.path, upstream(is_remote=is_remote), 9, form_type=b"new"
    )
    assert b"\r\nx-content-type: %b\r\ncontent-type: new\r\nz: 1\r\n" % TYPE in head
    first = prepared(b"Content-Type: %b\r\n" % TYPE)
    head = request_head(first, b"/", upstream(is_remote=is_remote), 9, form_type=b"new")
    assert head.count(b"content-type: ") == head.count(b"content-type: new\r\n") == 1
