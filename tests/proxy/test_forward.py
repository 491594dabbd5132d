import pytest

from llama_router.proxy.forward import (
    control_fields,
    foreign_fields,
    request_fields,
    response_fields,
)
from llama_router.proxy.head import RequestHead, ResponseHead


def sent(*fields: tuple[bytes, bytes], drop_keys: bool = False) -> bytes:
    head = RequestHead()
    head.headers = list(fields)
    return request_fields(head, drop_keys=drop_keys)


def passed(*fields: tuple[bytes, bytes]) -> bytes:
    return response_fields(ResponseHead(200, b"OK", list(fields), keep_alive=True))


@pytest.mark.parametrize(
    "name",
    [
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"http2-settings", b"host", b"content-length", b"expect", b"accept-encoding",
        b"cookie", b"forwarded", b"x-real-ip", b"x-admin-token", b"proxy-authorization",
        b"proxy-x", b"x-router-class", b"x-router-key", b"x-router-scopes", b"x-forwarded-for",
        b"x-forwarded-anything",
        b"x-llama-router-secret",
    ],
)  # fmt: skip
def test_what_is_not_for_engines_stays_here(name: bytes) -> None:
    assert sent((name, b"x"), (b"x-kept", b"y")) == b"x-kept: y\r\n"


def test_the_rest_goes_on_in_its_order() -> None:
    assert sent((b"b", b"1"), (b"a", b"2"), (b"b", b"3")) == b"b: 1\r\na: 2\r\nb: 3\r\n"


@pytest.mark.parametrize(
    "options",
    [
        [b"x-a"],
        [b"close, X-A"],
        [b" x-a ,keep-alive"],
        [b"close", b"x-a"],
        [b"keep-alive", b"close,x-a"],
        [b"x-b", b"x-a"],
    ],
)
def test_fields_named_in_connection_stay_here(options: list[bytes]) -> None:
    fields = [(b"connection", option) for option in options]
    assert sent((b"x-a", b"1"), *fields, (b"x-c", b"2")) == b"x-c: 2\r\n"
    assert passed((b"x-a", b"1"), *fields) == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
def test_keys_go_on_only_when_they_are_not_the_routers(name: bytes) -> None:
    assert sent((name, b"k"), drop_keys=True) == b""
    assert sent((name, b"k")) == name + b": k\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer",
        b"content-length", b"set-cookie", b"access-control-allow-origin", b"x-accel-buffering",
    ],
)  # fmt: skip
def test_what_is_not_for_clients_stays_here(name: bytes) -> None:
    assert passed((name, b"x"), (b"server", b"y")) == b"HTTP/1.1 200 OK\r\nserver: y\r\n"


def test_a_stream_is_not_to_be_buffered() -> None:
    head = ResponseHead(200, b"", [], keep_alive=True, is_event_stream=True)
    assert response_fields(head) == b"HTTP/1.1 200 \r\nx-accel-buffering: no\r\n"


def test_another_machine_sees_neither_keys_nor_where_a_client_is() -> None:
    head = RequestHead()
    private = (
        b"authorization x-api-key api-key x-goog-api-key origin referer sec-fetch-site cookie"
        b" x-router-class x-forwarded-for host accept-encoding connection x-hidden"
    )
    head.headers = [(name, b"x") for name in private.split()]
    head.headers[-2] = (b"connection", b"x-hidden")
    head.headers += [(b"accept", b"y"), (b"anthropic-version", b"1")]
    assert foreign_fields(head) == b"accept: y\r\nanthropic-version: 1\r\n"


def test_a_keys_name_cannot_be_taken_for_a_field() -> None:
    assert control_fields("ann", ("inference", "admin")) == (
        b"x-router-key: ann\r\nx-router-scopes: inference,admin\r\n"
    )
    assert control_fields("a\r\nx: \u00fc%", ()) == (
        b"x-router-key: a%0D%0Ax:%20%C3%BC%25\r\nx-router-scopes: \r\n"
    )


def test_an_answer_gives_no_orders_to_whatever_stands_before_the_router() -> None:
    fields = [(b"x-accel-redirect", b"/etc"), (b"x-sendfile", b"/etc"), (b"x-accel", b"1")]
    head = ResponseHead(200, b"OK", fields, keep_alive=True)
    assert response_fields(head) == b"HTTP/1.1 200 OK\r\nx-accel: 1\r\n"
