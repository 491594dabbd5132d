import pytest

from llama_router.proxy.body import Body, BodyBudget
from llama_router.proxy.errors import BadRequestError, ModelNotFoundError, NoModelsRunningError
from llama_router.proxy.guard import Guard
from llama_router.proxy.peek import Peek
from llama_router.proxy.prepared import PreparedRequest, request_cache
from llama_router.proxy.targets import find_destination, is_quick_to_peek, peek_body
from llama_router.proxy.upstream import Upstream
from tests.support.fake_gate import FakeGate


def prepared(line: bytes, fields: bytes = b"") -> PreparedRequest:
    data = line + b" HTTP/1.1\r\nhost: localhost\r\n" + fields + b"\r\n"
    return request_cache(Guard()).get(data)[0]


async def found(
    line: bytes, fields: bytes = b"", *, root: str | None = None
) -> tuple[str, bytes, bool] | None:
    upstream = Upstream(port=1, connect_timeout_s=1.0)
    gate = FakeGate(upstream, upstream)
    gate.root = root
    gate.models |= {"a": "a", "a/b": "a/b", "alias": "user/repo:Q4"}
    destination = find_destination(prepared(line, fields), gate)
    if destination is None:
        return None
    return destination.target.model, destination.path, destination.may_load


@pytest.mark.parametrize(
    ("line", "model", "path", "may_load"),
    [
        (b"GET /upstream/a/x", "a", b"/x", False),
        (b"POST /upstream/a/b/x", "a/b", b"/x", True),
        (b"GET /upstream/a/bc/x", "a", b"/bc/x", False),
        (b"GET /upstream/a/b", "a/b", b"/", False),
        (b"GET /upstream/a/", "a", b"/", False),
        (b"GET /upstream/a%2Fb/x", "a/b", b"/x", False),
        (b"GET /upstream/%61/c%2fd", "a", b"/c%2fd", False),
        (b"GET /upstream/%61/b%2fc%20d", "a/b", b"/c%20d", False),
        (b"GET /upstream/a/x?autoload=1", "a", b"/x", True),
        (b"GET /user/repo:Q4/props", "user/repo:Q4", b"/props", False),
        (b"GET /props?model=alias", "user/repo:Q4", b"/props", False),
        (b"GET /health?model=a&autoload=1", "a", b"/health", True),
    ],
)
@pytest.mark.asyncio
async def test_the_longest_id_is_cut_off(
    line: bytes, model: str, path: bytes, *, may_load: bool
) -> None:
    assert await found(line) == (model, path, may_load)


@pytest.mark.parametrize("line", [b"GET /nobody/props", b"GET /a/x/props", b"HEAD /x/y/slots"])
@pytest.mark.asyncio
async def test_what_begins_with_no_id_is_the_control_planes(line: bytes) -> None:
    assert await found(line) is None


@pytest.mark.asyncio
async def test_what_must_begin_with_an_id_and_does_not_is_not_found() -> None:
    for line in (b"GET /upstream/nobody/x", b"GET /upstream/../a", b"GET /props?model=nobody"):
        with pytest.raises(ModelNotFoundError):
            await found(line)


@pytest.mark.asyncio
async def test_questions_about_no_model_are_about_the_root_target() -> None:
    assert await found(b"GET /slots", root="a") == ("a", b"/slots", False)
    with pytest.raises(NoModelsRunningError):
        await found(b"GET /slots")


@pytest.mark.parametrize(
    ("site", "mode", "may_load"),
    [
        (b"none", b"navigate", True),
        (b"same-origin", b"navigate", True),
        (b"cross-site", b"navigate", False),
        (b"same-site", b"navigate", False),
        (b"none", b"no-cors", False),
    ],
)
@pytest.mark.asyncio
async def test_a_person_who_opens_an_engines_page_starts_it(
    site: bytes, mode: bytes, *, may_load: bool
) -> None:
    fields = b"sec-fetch-site: %b\r\nsec-fetch-mode: %b\r\n" % (site, mode)
    destination = await found(b"GET /upstream/a/", fields)
    assert destination == ("a", b"/", may_load)


def body(data: bytes) -> Body:
    return Body(BodyBudget(), data, None, len(data))


FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--b--\r\n'


def test_bodies_are_read_by_their_type() -> None:
    form_type = b"content-type: multipart/form-data; boundary=b\r\n"
    form = prepared(b"POST /v1/x", form_type)
    assert peek_body(form, body(FORM)) == Peek("a", stream=False)
    plain = prepared(b"POST /v1/x")
    assert peek_body(plain, body(b'{"model":"a"}')).model == "a"
    with pytest.raises(BadRequestError):
        peek_body(plain, body(FORM))
    assert is_quick_to_peek(plain, body(b" " * 100_000))
    assert not is_quick_to_peek(form, body(b" " * 100_000))


def test_only_old_paths_may_have_no_body() -> None:
    assert peek_body(prepared(b"POST /completion"), body(b"")).model is None
    with pytest.raises(BadRequestError):
        peek_body(prepared(b"POST /v1/completions"), body(b""))
