import pytest

from llama_router.proxy.forward import request_fields, response_fields
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
        b"proxy-x", b"x-router-class", b"x-forwarded-for", b"x-forwarded-anything",
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
