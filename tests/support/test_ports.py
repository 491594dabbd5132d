import socket

import pytest

from tests.support.ports import HOST, WINDOW_COUNT, PortBlock, port_window


def test_two_processes_never_have_the_same_ports() -> None:
    first, second = PortBlock(), PortBlock()
    try:
        windows = [block.window() for block in (first, second) for _ in range(3)]
        ports = [port for window in windows for port in range(window, window + WINDOW_COUNT)]
        assert len(set(ports)) == 6 * WINDOW_COUNT
        assert first.first < windows[0] <= windows[2] < second.first or first.first > second.first
    finally:
        first.close()
        second.close()


def test_a_block_that_was_given_back_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Among ports of this process: elsewhere another may take it first.
    own = port_window()
    monkeypatch.setattr("tests.support.ports._FIRST_PORT", own)
    monkeypatch.setattr("tests.support.ports._LAST_PORT", own + WINDOW_COUNT)
    monkeypatch.setattr("tests.support.ports._BLOCK_COUNT", 1)
    first, second = PortBlock(), PortBlock()
    assert (first.first, second.first) == (own, own + 1)
    first.close()
    third = PortBlock()
    assert third.first == first.first
    for block in (second, third):
        block.close()


def test_single_ports_are_free_and_differ_from_windows() -> None:
    block = PortBlock()
    try:
        window = block.window()
        given = [block.single()]
        with socket.create_server((HOST, given[0] + 1)):
            given += [block.single() for _ in range(WINDOW_COUNT)]
        assert given[1] == given[0] + 2
        windows = (window, block.window())
        taken = {port for first in windows for port in range(first, first + WINDOW_COUNT)}
        assert len({*given}) == len(given)
        assert not taken & {*given}
    finally:
        block.close()


def test_a_window_in_which_a_port_is_taken_is_passed_over() -> None:
    block = PortBlock()
    try:
        following = block.window() + WINDOW_COUNT
        with socket.create_server((HOST, following + WINDOW_COUNT - 1)):
            assert block.window() == following + WINDOW_COUNT
    finally:
        block.close()


def test_windows_come_again_until_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    block = PortBlock()
    try:
        seen = [block.window() for _ in range(200)]
        assert len(set(seen)) < 50
        monkeypatch.setattr("tests.support.ports._is_free", lambda _port, **_rest: False)
        with pytest.raises(OSError, match="something else uses the ports"):
            block.window()
    finally:
        block.close()
