"""What the fake engine's threads share."""

import argparse
import json
import os
import select
import signal
import socket
import sys
import threading
from collections import Counter, deque
from typing import Any, Protocol


class Reporter(Protocol):
    """Where events for the controller go."""

    def tell(self, event: str, **facts: object) -> None:
        """Report an event with its facts."""


class Stream:
    """One streamed answer: tokens go in by commands (when gated), and come out in order."""

    def __init__(self, number: int, connection: socket.socket) -> None:
        self.number = number
        self._connection = connection
        self._commands: deque[dict[str, Any]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()

    def give(self, command: dict[str, Any]) -> None:
        """Hand the stream a command."""
        self._commands.append(command)
        self._wake_write.send(b"x")

    def take(self) -> dict[str, Any] | None:
        """Wait for the next command; None when the client left first."""
        while not self._commands:
            ready = wait_readable(None, self._connection, self._wake_read)
            if self._connection in ready and client_left(self._connection):
                return None
            if self._wake_read in ready:
                self._wake_read.recv(4096)
        return self._commands.popleft()

    def close(self) -> None:
        """Give the descriptors back."""
        self._wake_read.close()
        self._wake_write.close()


def wait_readable(timeout_s: float | None, *sockets: socket.socket) -> list[socket.socket]:
    """Wait until some of ``sockets`` can be read; none of them when the time is up."""
    if sys.platform == "win32":
        ready = select.select(sockets, [], [], timeout_s)[0]
    else:
        # select() takes no descriptor above 1023, which a thousand streams pass.
        poll = select.poll()
        for sock in sockets:
            poll.register(sock, select.POLLIN)
        found = {fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
        ready = [sock for sock in sockets if sock.fileno() in found]
    return ready


def die() -> None:
    """End this process at once, as one that the system kills."""
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)  # which is TerminateProcess
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def client_left(connection: socket.socket) -> bool:
    """Tell whether the other side has closed; for a readable connection."""
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


class Engine:
    """The engine's state, and what its threads tell the outside."""

    def __init__(self, options: argparse.Namespace, alias: str) -> None:
        self.options = options
        self.alias = alias
        # As llama-server: without an alias a model is called by its path.
        self.model_name: str = options.alias or options.model
        self.port = 0
        self.push = False
        self.is_ready = False
        self.may_bind = threading.Event()
        self.may_be_ready = threading.Event()
        # The controller's answer to --ask.
        self.switches: list[str] = []
        self.has_switches = threading.Event()
        self.link: Reporter | None = None
        self.lock = threading.Lock()
        self.requests = 0
        self.inference_requests = 0
        self.connections_accepted = 0
        self.streams: dict[int, Stream] = {}
        self.streams_ended: Counter[str] = Counter()
        self.last_request: dict[str, object] = {}
        self._next_stream = 1
        self._faults: deque[list[Any]] = deque()
        self._waiting_commands: deque[dict[str, Any]] = deque()

    def tell(self, event: str, **facts: object) -> None:
        """Report an event, if there is a controller."""
        if self.link is not None:
            self.link.tell(event, **facts)

    def arm(self, fault: str) -> None:
        """Let inference requests meet a fault: ``NAME`` for all, ``NAME:TIMES`` for the next."""
        name, _, times = fault.partition(":")
        with self.lock:
            self._faults.append([name, int(times) if times else -1])

    def next_fault(self) -> str:
        """Take the fault that the next inference request meets, "" for none."""
        with self.lock:
            if not self._faults:
                return ""
            first = self._faults[0]
            first[1] -= 1
            if first[1] == 0:
                self._faults.popleft()
            return str(first[0])

    def open_stream(self, connection: socket.socket) -> Stream:
        """Register a stream that begins."""
        with self.lock:
            stream = Stream(self._next_stream, connection)
            self._next_stream += 1
            self.streams[stream.number] = stream
            for command in self._waiting_commands:
                stream.give(command)
            self._waiting_commands.clear()
        self.tell("stream_started", stream=stream.number)
        return stream

    def close_stream(self, stream: Stream, how: str) -> None:
        """Take a stream off the list; ``how`` it ended."""
        with self.lock:
            del self.streams[stream.number]
            self.streams_ended[how] += 1
            stream.close()
        self.tell("stream_ended", stream=stream.number, how=how)

    def command_streams(self, command: dict[str, Any]) -> None:
        """Hand a command to one stream (``stream``) or to all; with none open, to the next."""
        with self.lock:
            wanted = command.get("stream")
            if wanted is not None:
                self.streams[wanted].give(command)
            elif self.streams:
                for stream in self.streams.values():
                    stream.give(command)
            else:
                self._waiting_commands.append(command)

    def model_info(self) -> dict[str, object]:
        """Give the model as /v1/models lists it."""
        return {
            "id": self.model_name,
            "aliases": [self.model_name],
            "tags": [],
            "object": "model",
            "created": 1700000000,
            "owned_by": "llamacpp",
            "meta": {
                "vocab_type": 1,
                "n_vocab": 32,
                "n_ctx": 4096,
                "n_ctx_train": 4096,
                "n_embd": 4,
                "n_params": 1000,
                "size": 4000,
                "ftype": "all F32",
            },
        }

    def say_progress(self, fraction: float) -> None:
        """Tell the router how far loading is, if it listens."""
        payload = {"stages": ["text_model"], "current": "text_model", "value": fraction}
        self._say_state("loading", payload)

    def say_ready(self) -> None:
        """Tell the router that loading is done."""
        self._say_state("ready", self.model_info())

    def _say_state(self, state: str, payload: dict[str, object]) -> None:
        if self.push:
            line = json.dumps({"state": state, "payload": payload}, separators=(",", ":"))
            sys.stdout.write(f"cmd_child_to_router:state:{line}\n")
            sys.stdout.flush()

    def state(self) -> dict[str, object]:
        """Give what a test wants to know."""
        with self.lock:
            return {
                "alias": self.alias,
                "model": self.options.model,
                "pid": os.getpid(),
                "ready": self.is_ready,
                "requests": self.requests,
                "inference_requests": self.inference_requests,
                "connections_accepted": self.connections_accepted,
                "active_streams": sorted(self.streams),
                "streams_ended": dict(self.streams_ended),
                "last_request": self.last_request,
            }
