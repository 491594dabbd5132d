import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import build, http_probe, peers

pytestmark = [
    pytest.mark.slow,  # compiles the tools
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]
RUN_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    cache = tmp_path_factory.mktemp("tools")
    return {name: build.tool(name, cache=cache) for name in build.TOOLS}


@pytest.fixture
def stub_port(tools: dict[str, Path], tmp_path: Path) -> Iterator[int]:
    with peers.running(peers.stub_spec(tools["stub_engine"], tmp_path, None), None) as stub:
        yield stub.port


def run(tool: Path, *arguments: str) -> dict[str, object]:
    result = subprocess.run(
        [str(tool), *arguments], capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=True
    )
    report: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return report


@contextmanager
def serving(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A server that sends the parts which `answer` makes of each request, then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    received = b""
                    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
                        part = connection.recv(65536)
                        if not part:
                            break
                        received += part
                    for part in answer(received):
                        connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(RUN_TIMEOUT_S)


def test_the_stub_streams_stamped_events_in_chunks_of_their_own(stub_port: int) -> None:
    body = b'{"model":"m","stream":true,"max_tokens":3}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", stub_port), timeout=RUN_TIMEOUT_S) as connection:
        connection.sendall(request + body)
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            part = connection.recv(65536)
            assert part
            received += part
    events = re.findall(rb"b4\r\n(data: .{172}\n\n)\r\n", received)
    assert len(events) == 3
    assert all(json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events)
    stamps = [int(digits) for digits in re.findall(rb'"t=(\d{20})', received)]
    assert stamps == sorted(set(stamps))
    assert received.endswith(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def test_the_stub_answers_a_plain_request_with_json(stub_port: int) -> None:
    response = http_probe.exchange(stub_port, "POST", "/v1/chat/completions", b'{"model":"m"}')
    assert http_probe.status_of(response) == 200
    answer = http_probe.json_of(response)
    assert isinstance(answer, dict)
    assert answer["object"] == "chat.completion"
    assert http_probe.status_of(http_probe.exchange(stub_port, "GET", "/nowhere")) == 404


def test_stream_load_counts_every_event_of_every_stream(
    tools: dict[str, Path], stub_port: int
) -> None:
    arguments = ("--streams", "20", "--seconds", "0.4", "--ramp", "0.1")
    report = run(tools["stream_load"], "--port", str(stub_port), *arguments)
    assert report["failed_streams"] == 0
    assert report["chunks_total"] == 20 * int(str(report["events_per_stream"]))
    assert 0 < int(str(report["chunks"])) < int(str(report["chunks_total"]))
    assert 0 < int(str(report["p50_ns"])) <= int(str(report["p99_ns"]))


def framed(payload: bytes, size: int) -> bytes:
    parts = [payload[i : i + size] for i in range(0, len(payload), size)]
    return b"".join(b"%X;x=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_stream_load_reads_events_that_a_peer_has_cut_anywhere(tools: dict[str, Path]) -> None:
    def answer(request: bytes) -> list[bytes]:
        found = re.search(rb'"max_tokens":(\d+)', request)
        assert found
        event = b': comment\n\ndata: {"x":"t=%020d"}\n\n' % 1
        whole = STREAM_HEAD + framed(event * int(found[1]) + b"data: [DONE]\n\n", 7)
        return [whole[i : i + 11] for i in range(0, len(whole), 11)]

    with serving(answer) as port:
        report = run(tools["stream_load"], "--port", str(port), "--seconds", "0.1", "--ramp", "0")
    assert report["errors"] == {}
    assert report["chunks_total"] == report["events_per_stream"]


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status"),
        (STREAM_HEAD + framed(b"data: [DONE]\n\n", 50), "count"),
        (STREAM_HEAD + b"5\r\ndata:\r\n", "early_end"),
        (STREAM_HEAD + b"nonsense\r\n", "framing"),
    ],
)
def test_stream_load_names_what_was_wrong(
    tools: dict[str, Path], response: bytes, fault: str
) -> None:
    with serving(lambda _: [response]) as port:
        report = run(tools["stream_load"], "--port", str(port), "--seconds", "0.1", "--ramp", "0")
    assert report["errors"] == {fault: 1}


def test_rate_load_gets_right_answers_from_the_stub(tools: dict[str, Path], stub_port: int) -> None:
    arguments = ("--connections", "4", "--seconds", "0.5", "--warmup", "0.05")
    report = run(tools["rate_load"], "--port", str(stub_port), *arguments)
    assert report["failed"] == 0
    assert int(str(report["requests_total"])) > 100
    assert report["reconnects"] == 0


def test_rate_load_refuses_an_answer_of_another_length(
    tools: dict[str, Path], stub_port: int
) -> None:
    report = run(tools["rate_load"], "--port", str(stub_port), "--expect", "7")
    assert report["requests_total"] == 0
    errors = report["errors"]
    assert isinstance(errors, dict)
    assert errors["length"] == report["failed"] != 0


@pytest.mark.nginx
def test_nginx_relays_to_the_stub(tools: dict[str, Path], stub_port: int, tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("needs nginx")
    spec = peers.nginx_spec(Path(nginx), tmp_path / "nginx", stub_port)
    with peers.running(spec, None) as running:
        assert len(running.pids()) == 2
        report = run(
            tools["stream_load"], "--port", str(running.port), "--streams", "5",
            "--seconds", "0.2", "--ramp", "0",
        )  # fmt: skip
    assert report["failed_streams"] == 0


def test_a_compiled_tool_is_found_again_and_a_missing_compiler_is_named(
    tools: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    cache = tools["rate_load"].parent
    assert build.tool("rate_load", cache=cache) == tools["rate_load"]
    with pytest.raises(build.BuildError, match="needs a C compiler"):
        build.tool("rate_load", cache=tmp_path)
