"""Reading the model's name out of large bodies, and rewriting them, in a process of its own.

Parsing tens of megabytes would hold the event loop for tens of milliseconds, and a thread would
hold the interpreter as long. So bodies on disk are read by one small child, started at the first
of them; it gets the open file, answers with a line, and ends when the router does, or when none has
come for a while. So are smaller ones that are slow to read, which are sent to it. What it changes
it writes into a file that it is given, or sends back.
"""

import asyncio
import socket
import subprocess
import sys
from typing import IO

import msgspec

from llama_router.proxy.errors import BadRequestError, InternalError
from llama_router.proxy.form import MAX_FORM_TYPE_BYTES
from llama_router.proxy.inspector_child import (
    FIRST_QUESTION_BYTES,
    Answer,
    Change,
    Question,
    change_body,
    change_into_file,
    peek_into,
)
from llama_router.proxy.peek import Peek

# A gigabyte of form takes about a second.
_INSPECTION_TIMEOUT_S = 60.0
# It takes some 20 MiB, and a tenth of a second to start: who sends large bodies sends several.
_IDLE_MAX_S = 300.0
_RECEIVE_BYTES = 256 * 1024
# Windows has no way to hand an open file to the child.
_PASSES_FILES = sys.platform != "win32"


class Changed(msgspec.Struct, frozen=True):
    """A body that was changed: ``data``, or nothing if it was written into a file."""

    peek: Peek
    size_bytes: int
    data: bytes = b""


class BodyInspector:
    """The router's side. One question at a time; further ones wait in line."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_error = ""
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._retiring: asyncio.Task[None] | None = None

    async def inspect(self, source: IO[bytes] | bytes, form_type: bytes | None) -> Peek:
        """Return what a body, or the body in a file, names.

        ``form_type`` is the Content-Type of a multipart form, None for JSON.
        The file's position is at its start before and after.
        Raises BadRequestError or InternalError.
        """
        question = _question(source, form_type)
        if not _PASSES_FILES:
            return await asyncio.to_thread(peek_into, source, question.form_type)
        answer, _ = await self._ask_in_turn(question, source, None)
        return Peek(answer.model, answer.stream, answer.keep_alive_s)

    async def change(
        self,
        source: IO[bytes] | bytes,
        form_type: bytes | None,
        change: Change,
        target: IO[bytes] | None,
    ) -> Changed:
        """Return a body, or the body in a file, as it is after the change; see ``inspect``.

        What was in a file comes into the file ``target``. Raises BadRequestError or InternalError.
        """
        question = _question(source, form_type, change)
        if not _PASSES_FILES:
            return await asyncio.to_thread(_change_here, source, question, change, target)
        answer, data = await self._ask_in_turn(question, source, target)
        peek = Peek(answer.model, answer.stream, answer.keep_alive_s)
        return Changed(peek, answer.size_bytes, data)

    async def _ask_in_turn(
        self, question: Question, source: IO[bytes] | bytes, target: IO[bytes] | None
    ) -> tuple[Answer, bytes]:
        async with self._turn:
            await self._ready()
            self._keep()
            try:
                async with asyncio.timeout(_INSPECTION_TIMEOUT_S):
                    answer, data = await self._ask(question, source, target)
            except (OSError, TimeoutError, msgspec.DecodeError) as error:
                await self.close()
                raise InternalError(f"the request's body could not be read: {error!r}") from None
            except asyncio.CancelledError:
                # The answer is still to come and would be taken for that of the next question.
                await self.close()
                raise
            self._count_idle()
        if answer.error:
            raise BadRequestError(answer.error, param=answer.param)
        return answer, data

    async def close(self) -> None:
        """End the child, also one that is just being started."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        self._keep()
        if self._retiring is not None:
            await asyncio.wait([self._retiring])
        await _reap(self._let_go())

    def _count_idle(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(_IDLE_MAX_S, self._retire)

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire(self) -> None:
        """End the child for want of questions; the next one starts another."""
        self._idle = None
        # At once, so that a question that comes meanwhile does not ask this one.
        reaping = _reap(self._let_go())
        loop = asyncio.get_running_loop()
        self._retiring = loop.create_task(reaping, name="end inspector")

    def _let_go(self) -> "subprocess.Popen[bytes] | None":
        if self._socket is not None:
            self._socket.close()
        child = self._child
        self._socket = self._child = None
        return child

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
        else:
            # Whoever wanted it may have left.
            self._count_idle()
        finally:
            self._starting = None

    async def _ask(
        self, question: Question, source: IO[bytes] | bytes, target: IO[bytes] | None
    ) -> tuple[Answer, bytes]:
        channel = self._socket
        if channel is None:
            raise ConnectionResetError("the inspector has been closed")
        loop = asyncio.get_running_loop()
        text = msgspec.json.encode(question) + b"\n"
        if isinstance(source, bytes):
            await loop.sock_sendall(channel, text)
            await loop.sock_sendall(channel, source)
        elif sys.platform != "win32":
            files = [source.fileno()] if target is None else [source.fileno(), target.fileno()]
            sent = socket.send_fds(channel, [text[:FIRST_QUESTION_BYTES]], files)
            await loop.sock_sendall(channel, text[sent:])
        return await _receive_answer(channel, has_data=target is None)


async def _reap(child: "subprocess.Popen[bytes] | None") -> None:
    if child is not None:
        child.kill()
        await asyncio.to_thread(child.wait)


async def _receive_answer(channel: socket.socket, *, has_data: bool) -> tuple[Answer, bytes]:
    """Return an answer, and the new body if it follows."""
    loop = asyncio.get_running_loop()

    async def receive() -> bytes:
        data = await loop.sock_recv(channel, _RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the inspector has ended")
        return data

    text = await receive()
    while b"\n" not in text:
        text += await receive()
    line, _, data = text.partition(b"\n")
    answer = msgspec.json.decode(line, type=Answer)
    if not has_data:
        return answer, b""
    pieces, missing_bytes = [data], answer.size_bytes - len(data)
    while missing_bytes > 0:
        pieces.append(await receive())
        missing_bytes -= len(pieces[-1])
    return answer, b"".join(pieces)


def _question(
    source: IO[bytes] | bytes, form_type: bytes | None, change: Change | None = None
) -> Question:
    form_type = form_type or b""
    if len(form_type) > MAX_FORM_TYPE_BYTES:
        raise BadRequestError("the multipart body's Content-Type is too long")
    return Question(form_type, len(source) if isinstance(source, bytes) else 0, change)


def _change_here(
    source: IO[bytes] | bytes, question: Question, change: Change, target: IO[bytes] | None
) -> Changed:
    if target is not None:
        peek, size_bytes = change_into_file(source, question.form_type, change, target)
        return Changed(peek, size_bytes)
    pieces: list[bytes] = []
    peek, size_bytes = change_body(source, question.form_type, change, pieces.append)
    return Changed(peek, size_bytes, b"".join(pieces))


def _start_child() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "llama_router.proxy.inspector_child"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.setblocking(False)
    return child, ours
