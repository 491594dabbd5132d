import pytest

from llama_router.stress.fake_engine.connection import Hangup
from llama_router.stress.fake_engine.faults import FAULTS
from tests.support.fake_engine_parts import connected, engine_of


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("garbage", b"\x00\x01\x02"),
        ("double-length", b"Content-Length: 41\r\nContent-Length: 4"),
        ("status-429", b"HTTP/1.1 429"),
        ("no-last-chunk", b'" two"'),
    ],
)
def test_a_fault_says_what_its_name_says_and_hangs_up(name: str, said: bytes) -> None:
    with connected(engine_of()) as (connection, client):
        with pytest.raises(Hangup):
            FAULTS[name](connection, {})
        assert said in client.recv(65536)


def test_odd_chunks_are_a_right_answer_all_the_same() -> None:
    with connected(engine_of()) as (connection, client):
        FAULTS["odd-chunks"](connection, {})
        assert client.recv(65536).endswith(b"0\r\n\r\n")
