"""Reading the model's name out of large bodies, in a process of its own.

Parsing tens of megabytes would hold the event loop for tens of milliseconds, and a thread would
hold the interpreter as long. So bodies on disk are read by one small child, started at the first
of them; it gets the open file, answers with a line, and ends when the router does. So are smaller
ones that are slow to read, which are sent to it.
"""

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import subprocess
import sys
from typing import IO

import msgspec

from llama_router.proxy.errors import BadRequestError, InternalError
from llama_router.proxy.peek import MAX_FORM_TYPE_BYTES, Peek, peek_json, peek_multipart

# A gigabyte of form takes about a second.
_INSPECTION_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 16 * 1024
# A form's type, in base64 within JSON, with room to spare.
_MAX_QUESTION_BYTES = 16 * 1024
_RECEIVE_BYTES = 256 * 1024
# Windows has no way to hand an open file to the child.
_PASSES_FILES = sys.platform != "win32"


class _Question(msgspec.Struct):
    form_type: bytes
    # How much of the body follows; 0 when it comes as a file.
    size_bytes: int = 0


class _Answer(msgspec.Struct):
    model: str | None = None
    stream: bool = False
    keep_alive_s: float | None = None
    error: str = ""
    param: str | None = None


class BodyInspector:
    """The router's side. One question at a time; further ones wait in line."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_error = ""
        self._turn = asyncio.Lock()

    async def inspect(self, source: IO[bytes] | bytes, form_type: bytes | None) -> Peek:
        """Return what a body, or the body in a file, names.

        ``form_type`` is the Content-Type of a multipart form, None for JSON.
        The file's position is at its start before and after.
        Raises BadRequestError or InternalError.
        """
        form_type = form_type or b""
        if len(form_type) > MAX_FORM_TYPE_BYTES:
            raise BadRequestError("the multipart body's Content-Type is too long")
        if not _PASSES_FILES:
            return await asyncio.to_thread(_peek_here, source, form_type)
        return await self._inspect_aside(source, form_type)

    async def _inspect_aside(self, source: IO[bytes] | bytes, form_type: bytes) -> Peek:
        async with self._turn:
            await self._ready()
            try:
                async with asyncio.timeout(_INSPECTION_TIMEOUT_S):
                    answer = await self._ask(source, form_type)
            except (OSError, TimeoutError, msgspec.DecodeError) as error:
                await self.close()
                raise InternalError(f"the request's body could not be read: {error!r}") from None
            except asyncio.CancelledError:
                # The answer is still to come and would be taken for that of the next question.
                await self.close()
                raise
        if answer.error:
            raise BadRequestError(answer.error, param=answer.param)
        return Peek(answer.model, answer.stream, answer.keep_alive_s)

    async def close(self) -> None:
        """End the child, also one that is just being started."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._child is not None:
            child, self._child = self._child, None
            child.kill()
            await asyncio.to_thread(child.wait)

    async def _ready(self) -> None:
        """Have the child started. Raises InternalError."""
        if self._socket is not None:
            return
        if self._starting is None:
            self._start_error = "its reader has been closed"
            starting = asyncio.get_running_loop().create_task(self._start(), name="start inspector")
            self._starting = starting
        # Whoever asked may leave meanwhile; the child is then there for the next one.
        await asyncio.wait([self._starting])
        if self._socket is None:
            raise InternalError(f"the request's body could not be read: {self._start_error}")

    async def _start(self) -> None:
        try:
            self._child, self._socket = await asyncio.to_thread(_start_child)
        except OSError as error:
            self._start_error = str(error)
        finally:
            self._starting = None

    async def _ask(self, source: IO[bytes] | bytes, form_type: bytes) -> _Answer:
        channel = self._socket
        if channel is None:
            raise ConnectionResetError("the inspector has been closed")
        loop = asyncio.get_running_loop()
        if isinstance(source, bytes):
            question = msgspec.json.encode(_Question(form_type, len(source))) + b"\n"
            await loop.sock_sendall(channel, question)
            await loop.sock_sendall(channel, source)
        elif sys.platform != "win32":
            question = msgspec.json.encode(_Question(form_type)) + b"\n"
            socket.send_fds(channel, [question], [source.fileno()])
        answer = b""
        while not answer.endswith(b"\n"):
            data = await loop.sock_recv(channel, _MAX_ANSWER_BYTES)
            if not data:
                raise ConnectionResetError("the inspector has ended")
            answer += data
        return msgspec.json.decode(answer, type=_Answer)


def _start_child() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "llama_router.proxy.inspector"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.setblocking(False)
    return child, ours


def _peek_file(file: IO[bytes], form_type: bytes) -> Peek:
    size_bytes = os.fstat(file.fileno()).st_size
    if not form_type:
        data = os.pread(file.fileno(), size_bytes, 0) if hasattr(os, "pread") else file.read()
        file.seek(0)
        return peek_json(data)
    if not size_bytes:
        return peek_multipart(b"", form_type)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return peek_multipart(mapped, form_type)


def _peek_here(source: IO[bytes] | bytes, form_type: bytes) -> Peek:
    if isinstance(source, bytes):
        return _peek_bytes(source, form_type)
    return _peek_file(source, form_type)


def _peek_bytes(data: bytes, form_type: bytes) -> Peek:
    return peek_multipart(data, form_type) if form_type else peek_json(data)


def _receive_rest(channel: socket.socket, data: bytes, size_bytes: int) -> bytes:
    pieces, missing_bytes = [data], size_bytes - len(data)
    while missing_bytes > 0:
        piece = channel.recv(min(missing_bytes, _RECEIVE_BYTES))
        if not piece:
            raise ConnectionResetError("the router has gone")
        pieces.append(piece)
        missing_bytes -= len(piece)
    return b"".join(pieces)


if sys.platform != "win32":

    def _serve(channel: socket.socket) -> None:
        while True:
            text, descriptors, _flags, _address = socket.recv_fds(channel, _MAX_QUESTION_BYTES, 1)
            if not text:
                return
            line, _, data = text.partition(b"\n")
            question = msgspec.json.decode(line, type=_Question)
            try:
                if descriptors:
                    with os.fdopen(descriptors[0], "rb", buffering=0) as file:
                        peek = _peek_file(file, question.form_type)
                else:
                    data = _receive_rest(channel, data, question.size_bytes)
                    peek = _peek_bytes(data, question.form_type)
                answer = _Answer(peek.model, peek.stream, peek.keep_alive_s)
            except BadRequestError as error:
                answer = _Answer(error=error.message, param=error.param)
            channel.sendall(msgspec.json.encode(answer) + b"\n")

    def _main() -> None:
        # The form parser's opinion of what it gets is in the answers.
        logging.disable()
        with socket.socket(fileno=0) as channel, contextlib.suppress(KeyboardInterrupt, OSError):
            _serve(channel)

    if __name__ == "__main__":
        _main()
