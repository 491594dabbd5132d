"""A llama-server whose memory is looked at after a prompt has filled its context."""

import base64
import json
import re
import struct
import subprocess
import threading
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llama_router.engines import measure
from tests.support.tools import llama_server_path

_REQUEST_TIMEOUT_S = 900  # seconds when the machine has nothing else to do
_END_TIMEOUT_S = 60
_MIB_BYTES = 2**20
_BYTE_TOKEN = 100
_BYTE_TOKENS = 100  # that far apart are those of different prompts at most
_BUFFER = re.compile(r" (model|KV|RS|compute|output) buffer size = +([0-9.]+) MiB")


@dataclass
class MeasuredServer:
    """A running one. ``logged_bytes`` sums the buffers that it says it has made, by kind."""

    url: str
    pid: int
    logged_bytes: dict[str, int] = field(default_factory=dict)

    def prefill(self, tokens: int, *, first: int = 0) -> None:
        """Have it read a prompt of so many tokens and say one; ``first`` makes different ones."""
        prompt = [_BYTE_TOKEN + first % _BYTE_TOKENS] * tokens
        self._post("/completion", {"prompt": prompt, "n_predict": 1})

    def show_picture(self, pixels: int, text_tokens: int) -> None:
        """Have it look at a square picture beside a text of so many tokens."""
        url = "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()
        picture = {"type": "image_url", "image_url": {"url": url}}
        message = {
            "role": "user",
            "content": [{"type": "text", "text": "a" * text_tokens}, picture],
        }
        self._post("/v1/chat/completions", {"messages": [message], "max_tokens": 1})

    def resident_bytes(self) -> int:
        return measure.resident_bytes(self.pid)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S) as answer:  # noqa: S310
            answer.read()


@contextmanager
def measured_server(model: Path, arguments: Sequence[str]) -> Iterator[MeasuredServer]:
    """Run llama-server on a port that the system chooses, without mapping files into memory."""
    fixed = ["--port", "0", "--threads", "1", "--load-mode", "none", "--log-verbosity", "4"]
    process = subprocess.Popen(
        [llama_server_path(), "--model", model, *fixed, "--fit", "off", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    drain = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
    try:
        yield _await_ready(process, process.stdout, drain)
    finally:
        process.kill()
        process.wait(_END_TIMEOUT_S)
        if drain.is_alive():
            drain.join(_END_TIMEOUT_S)
        process.stdout.close()


def _await_ready(
    process: "subprocess.Popen[str]", output: IO[str], drain: threading.Thread
) -> MeasuredServer:
    log: list[str] = []
    logged: dict[str, int] = {}
    for line in output:
        log.append(line)
        if match := _BUFFER.search(line):
            size_bytes = int(float(match[2]) * _MIB_BYTES)
            logged[match[1]] = logged.get(match[1], 0) + size_bytes
        if "listening on http" in line:
            drain.start()
            url = "http" + line.split("listening on http")[1].split()[0]
            return MeasuredServer(url, process.pid, logged)
    raise AssertionError("llama-server ended:\n" + "".join(log[-20:]))


def _drain(output: IO[str]) -> None:
    for _line in output:
        pass


def _png(pixels: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x80\x40\x20" * pixels) * pixels
    signature = b"\x89PNG\r\n\x1a\n"
    body = chunk(b"IDAT", zlib.compress(rows))
    return signature + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")
