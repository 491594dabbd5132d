import os
import socket
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

if sys.platform == "linux":
    from llama_router.engines.platform import linux_listeners, process_table


def inode(server: socket.socket) -> int:
    return os.fstat(server.fileno()).st_ino


@pytest.fixture(params=["sock_diag", "proc"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "proc":

        def refuse(_port: int) -> None:
            raise PermissionError

        monkeypatch.setattr(linux_listeners, "_ask_kernel", refuse)


@pytest.mark.usefixtures("_way")
def test_listeners_are_told_apart_by_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = linux_listeners.listening_inodes
        assert found("127.0.0.1", port) == {inode(server)}
        assert found("localhost", port) == {inode(server)}
        assert found("127.0.0.2", port) == set()
        assert found("::1", port) == set()
        with socket.create_connection(("127.0.0.1", port)):
            assert found("127.0.0.1", port) == {inode(server)}
    assert found("127.0.0.1", port) == set()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_listener_on_all_addresses_answers_for_each(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=":" in host) as server:
        port = server.getsockname()[1]
        assert linux_listeners.listening_inodes("127.0.0.1", port) == {inode(server)}


def test_a_shared_port_belongs_to_all_who_listen_there() -> None:
    table = process_table()
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as first:
        port = first.getsockname()[1]
        assert table.listener_owners("127.0.0.1", port, [os.getpid()]) == (1, 1)
        assert table.listener_owners("127.0.0.1", port, []) == (1, 0)
        with socket.create_server(("127.0.0.1", port), reuse_port=True):
            assert table.listener_owners("127.0.0.1", port, [os.getpid()]) == (2, 2)
            assert table.listener_owners("127.0.0.1", port, [1]) == (2, 0)
