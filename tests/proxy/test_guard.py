import pytest

from llama_router.proxy.errors import AuthenticationError, ForbiddenError
from llama_router.proxy.guard import Guard
from llama_router.proxy.head import RequestHead
from llama_router.proxy.keys import ApiKey, digest_of


def head(
    *fields: tuple[bytes, bytes],
    host: bytes = b"localhost:1",
    method: bytes = b"GET",
    path: bytes = b"/v1/models",
) -> RequestHead:
    made = RequestHead()
    made.host, made.method, made.path = host, method, path
    made.headers = [(b"host", host), *fields]
    return made


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LocalHost:8080",
        b"localhost.",
        b"127.0.0.1",
        b"127.0.0.1:65535",
        b"192.168.1.7:1",
        b"[::1]",
        b"[::1]:8080",
        b"[fe80::1]",
        b"box.lan:1",
        b"BOX.lan",
        b"",
    ],
)
def test_addresses_and_known_names_are_allowed(host: bytes) -> None:
    Guard(allowed_hosts=["Box.LAN"]).check(head(host=host))


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"evil-localhost",
        b"127.0.0.1.nip.io",
        b"127.0.0.1.",
        b"0x7f.1",
        b"2130706433",
        b"0177.0.0.1",
        b"localhost:x",
        b"localhost:1:2",
        b"localhost:\xb2",
        b"localhost@evil.example",
        b"[::1",
        b"[::1]x",
        b"[evil.example]",
        b"::1",
        b"a b",
        b"\xff",
        b"localhost,evil.example",
    ],
)
def test_other_names_are_not(host: bytes) -> None:
    guard = Guard()
    for _ in range(2):
        with pytest.raises(ForbiddenError):
            guard.check(head(host=host))


def test_verdicts_are_kept_within_bounds() -> None:
    guard = Guard()
    for number in range(3000):
        with pytest.raises(ForbiddenError):
            guard.check(head(host=b"h%d.example" % number))
    assert len(guard._host_verdicts) <= 1024


SITE, ORIGIN = b"sec-fetch-site", b"origin"


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(SITE, b"same-origin")],
        [(SITE, b"none")],
        [(SITE, b"same-origin"), (ORIGIN, b"http://other")],
        [(ORIGIN, b"http://localhost:1")],
        [(ORIGIN, b"https://localhost:1")],
    ],
)
def test_own_pages_and_no_browsers_may_write(fields: list[tuple[bytes, bytes]]) -> None:
    Guard().check(head(*fields, method=b"POST"))


@pytest.mark.parametrize(
    "fields",
    [
        [(SITE, b"cross-site")],
        [(SITE, b"same-site")],
        [(SITE, b"")],
        [(SITE, b"cross-site"), (ORIGIN, b"http://localhost:1")],
        [(ORIGIN, b"null")],
        [(ORIGIN, b"")],
        [(ORIGIN, b"http://localhost")],
        [(ORIGIN, b"http://localhost:2")],
        [(ORIGIN, b"file://localhost:1")],
        [(ORIGIN, b"http://evil.example")],
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
def test_foreign_pages_may_not(fields: list[tuple[bytes, bytes]], method: bytes) -> None:
    with pytest.raises(ForbiddenError):
        Guard().check(head(*fields, method=method))
    Guard().check(head(*fields))


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Bearer k2"),
        (b"authorization", b"bearer  k2 "),
        (b"x-api-key", b"k2"),
        (b"x-admin-token", b"k2"),
    ],
)
def test_any_of_the_keys_opens(field: tuple[bytes, bytes]) -> None:
    Guard(api_keys=["k1", "k2"]).check(head(field))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"authorization", b"k1")],
        [(b"authorization", b"Basic k1")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer k")],
        [(b"authorization", b"Bearer k1k1")],
        [(b"x-api-key", b"K1")],
        [(b"x-api-key", b"\xff")],
    ],
)
@pytest.mark.parametrize("path", [b"/v1/models", b"/admin/load", b"/", b"/healthy", b"/health/"])
def test_nothing_else_does(fields: list[tuple[bytes, bytes]], path: bytes) -> None:
    with pytest.raises(AuthenticationError):
        Guard(api_keys=["k1"]).check(head(*fields, path=path))


@pytest.mark.parametrize("path", [b"/health", b"/v1/health"])
def test_health_is_public_but_starts_nothing(path: bytes) -> None:
    guard = Guard(api_keys=["k1"])
    guard.check(head(path=path))
    with pytest.raises(AuthenticationError):
        guard.check_start(head(path=path))
    guard.check_start(head((b"x-api-key", b"k1"), path=path))
    with pytest.raises(ForbiddenError):
        guard.check_start(head((b"x-api-key", b"k1"), (SITE, b"cross-site"), path=path))


@pytest.mark.parametrize("path", [b"/admin", b"/admin/load", b"/%61dmin/load", b"/adm%69n%2fload"])
def test_the_admin_token_is_asked_for_however_the_path_is_written(path: bytes) -> None:
    for guard, refusal in (
        (Guard(admin_token="t"), AuthenticationError),
        (Guard(admin_token="t", api_keys=["k"]), ForbiddenError),
    ):
        with pytest.raises(refusal):
            guard.check(head((b"x-api-key", b"k"), path=path))
        guard.check(head((b"x-admin-token", b"t"), path=path))


def test_the_admin_token_opens_the_routers_own_pages_but_no_model() -> None:
    guard = Guard(admin_token="t", api_keys=["k"])
    asked = head((b"x-api-key", b"t"))
    guard.check(asked)
    with pytest.raises(ForbiddenError, match="does not open 'inference'"):
        guard.check_inference(asked)


@pytest.mark.parametrize(
    ("token", "key", "path", "text"),
    [
        ("", b"i", b"/admin/models", "'admin'; that takes one with this scope"),
        ("t", b"i", b"/admin/models", "'admin'; that takes router.admin_token, or one with this"),
        ("t", b"t", b"/v1/completions", "'inference'; that takes one with this scope"),
    ],
)
def test_a_key_for_something_else_is_told_what_opens_it(
    token: str, key: bytes, path: bytes, text: str
) -> None:
    entry = ApiKey(digest=digest_of("i"), name="i", scopes=("inference",))
    guard, asked = Guard(admin_token=token, api_keys=[entry]), head((b"x-api-key", key), path=path)
    check = guard.check if path.startswith(b"/admin") else guard.check_inference
    with pytest.raises(ForbiddenError, match=f"^this key does not open {text}"):
        check(asked)


def test_without_keys_everything_is_open() -> None:
    Guard().check(head(path=b"/admin/load", method=b"POST"))


@pytest.mark.parametrize(
    "field",
    [(b"authorization", b"Bearer t"), (b"authorization", b"t"), (b"x-api-key", b"t")],
)
def test_the_admin_token_is_known_for_ones_own_wherever_it_stands(
    field: tuple[bytes, bytes],
) -> None:
    guard = Guard(admin_token="t")
    assert guard.is_own_key(head(field))
    assert guard.is_own_key(head((field[0], b"other"), field))
    assert not guard.is_own_key(head((field[0], b"Bearer other")))
    assert Guard(api_keys=["k"]).is_own_key(head(field))
    assert not Guard().is_own_key(head(field))


def test_a_key_for_each_scope_may_be_shown_at_once() -> None:
    guard = Guard(api_keys=["inference"], admin_token="admin")
    both = ((b"authorization", b"Bearer inference"), (b"x-admin-token", b"admin"))
    guard.check(head(*both))
    guard.check(head(*both, path=b"/admin/load"))


def test_a_model_whose_name_begins_like_the_admin_api_is_no_part_of_it() -> None:
    guard = Guard(admin_token="t")
    guard.check(head(path=b"/administrator/model/props"))
    for path in (b"/admin", b"/admin/", b"/admin/load", b"/%61dmin/load"):
        with pytest.raises(AuthenticationError):
            guard.check(head(path=path))


@pytest.mark.parametrize("page", [b"/admin/docs", b"/admin/docs/docs.js", b"/admin/docs/docs.css"])
def test_the_page_over_the_api_opens_without_a_key_and_nothing_else_below_admin_does(
    page: bytes,
) -> None:
    for guard in (Guard(api_keys=["k"]), Guard(admin_token="t"), Guard(api_keys=["k"])):
        guard.check(head(path=page))
        for path in (b"/admin/keys", page + b"/", page + b"%2f..%2fkeys", b"/admin/docs/../keys"):
            with pytest.raises(AuthenticationError):
                guard.check(head(path=path))
    with pytest.raises(ForbiddenError):
        Guard().check(head(path=page, host=b"evil.example"))
