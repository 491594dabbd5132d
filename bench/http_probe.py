"""The few HTTP exchanges that the harness makes itself, over plain sockets."""

import json
import socket
import time
from collections.abc import Callable, Sequence

# One exchange of a probe; an answer later than this counts as none.
PROBE_TIMEOUT_S = 1.0
# Between two probes: small against what is measured, large against what a probe costs.
PROBE_INTERVAL_S = 0.0005
RESPONSE_MAX_BYTES = 1 << 20


class ProbeError(Exception):
    """A peer did not answer as it has to; the text says what it did."""


def exchange(port: int, method: str, path: str, body: bytes = b"", timeout_s: float = 5.0) -> bytes:
    """Make one request on a connection of its own; return the whole raw response."""
    deadline = time.monotonic() + timeout_s
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(_request(port, method, path, body))
        received = bytearray()
        while not _is_whole(received) and time.monotonic() < deadline:
            part = connection.recv(65536)
            if not part:
                break
            received += part
        return bytes(received)


def status_of(response: bytes) -> int:
    """Return the status code of a raw response; 0 when there is none."""
    parts = response[:64].split(b" ")
    return int(parts[1]) if len(parts) > 1 and parts[1][:3].isdigit() else 0


def json_of(response: bytes) -> object:
    """Return the JSON body of a raw response with a Content-Length; ProbeError when it is none."""
    try:
        parsed: object = json.loads(response.partition(b"\r\n\r\n")[2])
    except ValueError as error:
        raise ProbeError(f"not JSON: {response[:200]!r}") from error
    return parsed


def is_healthy(port: int, paths: Sequence[str]) -> bool:
    """Whether one of `paths` answers 200 now."""
    for path in paths:
        try:
            if status_of(exchange(port, "GET", path, timeout_s=PROBE_TIMEOUT_S)) == 200:
                return True
        except OSError:
            return False
    return False


def accepts(port: int) -> bool:
    """Whether a connection is accepted now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def wait_until(
    check: Callable[[], bool], gone: Callable[[], bool], what: str, timeout_s: float
) -> float:
    """Wait for `check`; return the time.monotonic() at which it held.

    Raises ProbeError when `gone` holds first or `timeout_s` passes.
    """
    deadline = time.monotonic() + timeout_s
    while not check():
        if gone():
            raise ProbeError(f"{what}: the process ended before it was ready")
        if time.monotonic() > deadline:
            raise ProbeError(f"{what}: not ready after {timeout_s:g} s")
        time.sleep(PROBE_INTERVAL_S)
    return time.monotonic()


def first_token_s(port: int, model: str, timeout_s: float = 60.0) -> float:
    """Ask `model` for a few streamed tokens; return the seconds to the first event.

    The answer is read to its end, so that the engine is idle afterwards. Raises ProbeError when
    the answer is not a stream of events.
    """
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "max_tokens": 2,
        }
    ).encode()
    begin = time.monotonic()
    first: float | None = None
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(_request(port, "POST", "/v1/chat/completions", body))
        received = bytearray()
        while len(received) < RESPONSE_MAX_BYTES:
            part = connection.recv(65536)
            received += part
            if first is None and b"data: " in received:
                first = time.monotonic() - begin
            if not part or b"data: [DONE]" in received:
                break
    if first is None or status_of(bytes(received)) != 200 or b"data: [DONE]" not in received:
        raise ProbeError(f"{model}: no stream of events: {bytes(received[:300])!r}")
    return first


def _is_whole(received: bytearray) -> bool:
    # Without a Content-Length only the end of the connection ends a response.
    if len(received) >= RESPONSE_MAX_BYTES:
        return True
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False


def _request(port: int, method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
