import socket

from llama_router.stress.fake_engine.state import Stream, client_left, wait_readable
from tests.support.fake_engine_parts import Heard, engine_of


def test_faults_are_met_in_order_and_as_often_as_armed() -> None:
    engine = engine_of()
    engine.arm("hang:2")
    engine.arm("endless")
    assert [engine.next_fault() for _ in range(4)] == ["hang", "hang", "endless", "endless"]


def test_commands_wait_for_the_stream_they_are_for() -> None:
    engine = engine_of()
    engine.link = heard = Heard()
    engine.command_streams({"do": "token"})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = engine.open_stream(ours)
        assert stream.take() == {"do": "token"}
        theirs.close()
        assert stream.take() is None
        engine.close_stream(stream, "client_left")
    assert [name for name, _ in heard.events] == ["stream_started", "stream_ended"]
    assert engine.state()["streams_ended"] == {"client_left": 1}


def test_a_client_that_left_is_told_from_one_that_speaks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert wait_readable(0.0, ours) == []
        theirs.send(b"x")
        assert wait_readable(None, ours) == [ours]
        assert not client_left(ours)
        ours.recv(1)
        theirs.close()
        assert client_left(ours)
        stream = Stream(1, ours)
        stream.close()
