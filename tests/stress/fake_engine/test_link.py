import json
import os
import socket
import threading

import pytest

from llama_router.stress.fake_engine.link import Link
from tests.support.fake_engine_parts import engine_of


def test_it_says_hello_obeys_reports_and_ends_with_its_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda _status: ended.set())
    engine = engine_of()
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine.link = link = Link(f"127.0.0.1:{server.getsockname()[1]}", engine)
        controller, _ = server.accept()
        controller.settimeout(20)
        with controller, controller.makefile("rb") as lines:
            assert json.loads(lines.readline())["event"] == "hello"
            link.tell("ready", port=1)
            assert json.loads(lines.readline()) == {"event": "ready", "port": 1}
            orders: list[tuple[dict[str, object], dict[str, object]]] = [
                ({"do": "switches", "switches": ["--child"]}, {}),
                ({"do": "fault", "fault": "hang:1"}, {}),
                ({"do": "dance"}, {"error": "unknown command dance"}),
            ]
            for number, (what, reply) in enumerate(orders):
                controller.sendall(json.dumps({"id": number, **what}).encode() + b"\n")
                assert json.loads(lines.readline()) == {"reply": number, **reply}
        assert ended.wait(20)
        link._socket.close()
    assert engine.switches == ["--child"]
    assert engine.next_fault() == "hang"
