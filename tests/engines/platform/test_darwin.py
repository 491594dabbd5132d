import os
import socket
import subprocess
import sys

import pytest

from llama_router.engines.platform import process_table

pytestmark = pytest.mark.skipif(sys.platform != "darwin", reason="macOS only")


def test_processes_marks_and_listeners_are_seen() -> None:
    table = process_table()
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env=os.environ | {"LLAMA_ROUTER_ENGINE": "abc:1"},
    )
    try:
        assert table.boot_id()
        assert table.start_time(process.pid) is not None
        assert process.pid in table.descendants(os.getpid())
        assert process.pid in table.marked(b"LLAMA_ROUTER_ENGINE=abc:1\0")
        assert process.pid not in table.marked(b"LLAMA_ROUTER_ENGINE=ab:")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert table.listener_owners("127.0.0.1", port, [os.getpid()]) == (1, 1)
        assert table.kill_if(process.pid, lambda: True)
    finally:
        process.kill()
        process.communicate()
    assert table.start_time(process.pid) is None
