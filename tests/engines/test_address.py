import pytest

from llama_router.engines.address import (
    AddressError,
    EngineAddress,
    fill_address,
    fixed_address,
    fixed_port,
    takes_port,
)

OURS = "127.0.0.1"


def fill(text: str) -> EngineAddress:
    return fill_address(text, host=OURS, port=50001)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", EngineAddress(host=OURS, port=50001)),
        ("http://$host:$port", EngineAddress(host=OURS, port=50001)),
        ("http://localhost:$port/", EngineAddress(host=OURS, port=50001)),
        ("http://[::1]:$port", EngineAddress(host="::1", port=50001)),
        (
            "http://$host:$port/v1/",
            EngineAddress(host=OURS, port=50001, path_prefix="/v1"),
        ),
        ("http://$host:9000", EngineAddress(host=OURS, port=9000, is_given=True)),
        ("http://box.lan:$port", EngineAddress(host="box.lan", port=50001, is_given=True)),
        (
            "http://192.168.1.5/llm",
            EngineAddress(host="192.168.1.5", port=80, path_prefix="/llm", is_given=True),
        ),
    ],
)
def test_addresses(text: str, address: EngineAddress) -> None:
    assert fill(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "https://$host:$port",
        "$host:$port",
        "http://$host:0",
        "http://$host:70000",
        "http://$host:$path",
        "http://a b:1",
        "http://$host:1/a?b",
        "http://$host:1/$port",
        "http://$host:1/a\r\nx",
        "http://user@host:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="address"):
        fill(text)


def test_only_an_address_with_a_place_for_it_takes_the_port() -> None:
    assert takes_port("")
    assert takes_port("http://x:$port")
    assert not takes_port("http://x:9000")


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("", "", 0),
        ("http://$host:$port", "", 0),
        ("http://box.lan:$port", "", 0),
        ("no address", "", 0),
        ("http://$host:9000", "127.0.0.1:9000", 9000),
        ("http://LOCALHOST:09000/v1", "127.0.0.1:9000", 9000),
        ("http://[::1]:9000", "127.0.0.1:9000", 9000),
        ("http://0.0.0.0:9000", "127.0.0.1:9000", 9000),
        ("http://Box.lan:9000", "box.lan:9000", 0),
        ("http://192.168.1.5", "192.168.1.5:80", 0),
    ],
)
def test_an_address_that_is_always_the_same(text: str, address: str, port: int) -> None:
    assert fixed_address(text) == address
    assert fixed_port(text) == port
