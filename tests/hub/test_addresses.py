import pytest

from llama_router.hub.addresses import Addresses, is_private
from llama_router.hub.errors import HubError


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a",
        "https://cdn-lfs-us-1.hf.co/x?sig=1",
        "https://cas-bridge.xethub.hf.co/x",
        "https://cdn.mirror.example/x",
    ],
)
def test_where_the_hub_may_send_us(url: str) -> None:
    Addresses("", ["mirror.example"]).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co/a",
        "https://evil.example/a",
        "https://nothuggingface.co/a",
        "https://huggingface.co.evil.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/",
        "https://user:pass@huggingface.co/",
        "file:///etc/passwd",
        "ftp://huggingface.co/",
        "https:///x",
        "https://huggingface.co/a b",
        "https://hf.co:99999/",
    ],
)
def test_where_it_may_not(url: str) -> None:
    with pytest.raises(HubError) as raised:
        Addresses("").check(url)
    assert raised.value.code in ("forbidden_address", "bad_request")


def test_an_allowed_host_is_still_none_of_this_network() -> None:
    with pytest.raises(HubError, match="this machine's network"):
        Addresses("", ["10.0.0.1"]).check("https://10.0.0.1/x")


def test_a_private_hub_is_believed_as_its_operator_says() -> None:
    addresses = Addresses("http://192.168.1.5:8000/hub/")
    assert addresses.endpoint == "http://192.168.1.5:8000/hub"
    addresses.check("http://192.168.1.5:9000/x")
    assert addresses.is_hub("http://192.168.1.5:8000/x")
    assert not addresses.is_hub("http://192.168.1.5:9000/x")
    assert not addresses.is_hub("https://192.168.1.5:8000/x")
    with pytest.raises(HubError):
        addresses.check("http://192.168.1.6:8000/x")


def test_a_signature_is_not_shown() -> None:
    with pytest.raises(HubError) as raised:
        Addresses("").check("https://evil.example/a?Signature=secret")
    assert "secret" not in raised.value.message


def test_an_endpoint_must_be_one() -> None:
    for endpoint in ("nonsense", "ftp://x", "https://h/?x=1"):
        with pytest.raises(HubError):
            Addresses(endpoint)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", False),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("224.0.0.1", True),
        ("0.0.0.0", True),
        # A local proxy's stand-in for a public address.
        ("198.18.0.7", False),
        ("name.example", False),
    ],
)
def test_private_addresses(address: str, expected: bool) -> None:  # noqa: FBT001
    assert is_private(address) is expected


@pytest.mark.parametrize(
    "endpoint",
    [
        "mirror.example",
        "ftp://mirror.example",
        "https://m.example/?a=1",
        "https://me:pw1@m.example",
    ],
)
def test_an_endpoint_that_is_none_is_refused_by_the_name_of_its_setting(endpoint: str) -> None:
    with pytest.raises(HubError, match=r"hub\.endpoint, or HF_ENDPOINT") as raised:
        Addresses(endpoint)
    assert "pw1" not in raised.value.message
