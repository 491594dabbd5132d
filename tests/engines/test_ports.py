import socket

import pytest

from llama_router.engines.ports import MAX_PORT, MAX_TRIES, NoFreePortError, PortAllocator
from tests.support.ports import HOST, port_window


def test_ports_go_upward_and_a_released_one_is_not_the_next() -> None:
    base_port = port_window()
    ports = PortAllocator(base_port, HOST)
    first = ports.acquire()
    second = ports.acquire()
    assert base_port <= first < second
    ports.release(first)
    ports.release(first)
    assert ports.acquire() > second


def test_a_listener_on_the_host_or_on_all_addresses_is_passed_over() -> None:
    for address in (HOST, "0.0.0.0"):
        with socket.create_server((address, 0)) as server:
            taken = server.getsockname()[1]
            assert PortAllocator(taken, HOST).acquire() != taken


def test_after_the_last_port_comes_the_base_again_but_none_in_use() -> None:
    ports = PortAllocator(MAX_PORT - 3, HOST)
    got = []
    for _ in range(5):
        try:
            got.append(ports.acquire())
        except NoFreePortError:
            break
    assert len(set(got)) == len(got) <= 4
    ports.release(got[0])
    assert ports.acquire() == got[0]


def test_a_host_that_is_not_ours_is_said_so() -> None:
    with pytest.raises(NoFreePortError, match=r"192\.0\.2\.1"):
        PortAllocator(port_window(), "192.0.2.1").acquire()


def test_the_base_must_be_a_port() -> None:
    for wrong in (0, -1, MAX_PORT + 1):
        with pytest.raises(ValueError, match="base_port"):
            PortAllocator(wrong, HOST)


def test_it_gives_up_after_a_bounded_number_of_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def taken(_host: str, port: int) -> bool:
        tried.append(port)
        return False

    monkeypatch.setattr("llama_router.engines.ports._is_free", taken)
    with pytest.raises(NoFreePortError):
        PortAllocator(30_000, HOST).acquire()
    assert tried == list(range(30_000, 30_000 + MAX_TRIES))


def test_ports_of_others_are_passed_over_though_nobody_listens_there() -> None:
    base_port = port_window()
    ports = PortAllocator(base_port, HOST)
    first = ports.acquire({base_port, base_port + 1})
    assert first > base_port + 1
    assert ports.acquire() > first
