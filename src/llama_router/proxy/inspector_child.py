"""The child's side of ``inspector``: reads bodies, and writes those that are to be changed."""

import contextlib
import logging
import mmap
import os
import socket
import sys
from collections.abc import Callable
from typing import IO

import msgspec

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.peek import Peek, peek_json, peek_multipart
from llama_router.proxy.rewrite import Rewrite, rewrite_json
from llama_router.proxy.rewrite_form import rewrite_form

_RECEIVE_BYTES = 256 * 1024
# What files come with; longer questions go on behind it.
FIRST_QUESTION_BYTES = 4 * 1024
# A file that follows a question, and the one to be written.
_MAX_FILES = 2
# The output of a form is made of many small pieces.
_WRITE_BUFFER_BYTES = 256 * 1024


class Change(msgspec.Struct, frozen=True):
    """How to change a body that has been peeked into.

    ``boundary`` is the new form's; ``limit_bytes`` is how long the new body may be.
    """

    rewrite: Rewrite
    peek: Peek
    limit_bytes: int
    boundary: bytes = b""


class Question(msgspec.Struct, frozen=True):
    """What to do with a body. ``form_type`` is empty for JSON."""

    form_type: bytes
    # How much of the body follows; 0 when it comes as a file.
    size_bytes: int = 0
    change: Change | None = None


class Answer(msgspec.Struct):
    """What was found, or ``error``. ``size_bytes`` is the new body's, which follows or was written.

    It is written when the question came with a file for it.
    """

    model: str | None = None
    stream: bool = False
    keep_alive_s: float | None = None
    error: str = ""
    param: str | None = None
    size_bytes: int = 0


def peek_into(source: IO[bytes] | bytes, form_type: bytes) -> Peek:
    """Return what a body says. Raises BadRequestError."""
    if isinstance(source, bytes):
        return peek_multipart(source, form_type) if form_type else peek_json(source)
    if not form_type:
        return peek_json(_whole(source))
    if not os.fstat(source.fileno()).st_size:
        return peek_multipart(b"", form_type)
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return peek_multipart(mapped, form_type)


def change_body(
    source: IO[bytes] | bytes,
    form_type: bytes,
    change: Change,
    write: Callable[[bytes], object],
) -> tuple[Peek, int]:
    """Write the new body; return what it says and how long it is. Raises BadRequestError."""
    size_bytes = 0

    def write_counted(piece: bytes) -> None:
        nonlocal size_bytes
        size_bytes += len(piece)
        if size_bytes > change.limit_bytes:
            raise BadRequestError("the body grows too large when the model's filters are applied")
        write(piece)

    if not form_type:
        data = source if isinstance(source, bytes) else _whole(source)
        pieces, peek = rewrite_json(data, change.rewrite, change.peek)
        for piece in pieces:
            write_counted(piece)
        return peek, size_bytes

    def rewrite(body: mmap.mmap | bytes) -> Peek:
        return rewrite_form(
            body,
            form_type,
            change.rewrite,
            change.peek,
            boundary=change.boundary,
            write=write_counted,
        )

    if isinstance(source, bytes):
        return rewrite(source), size_bytes
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        peek = rewrite(mapped)
    return peek, size_bytes


def change_into_file(
    source: IO[bytes] | bytes, form_type: bytes, change: Change, target: IO[bytes]
) -> tuple[Peek, int]:
    """Do as ``change_body`` does, into a file; its position is at its start behind this."""
    with os.fdopen(target.fileno(), "wb", _WRITE_BUFFER_BYTES, closefd=False) as out:
        found = change_body(source, form_type, change, out.write)
    target.seek(0)
    return found


def _whole(file: IO[bytes]) -> bytes:
    size_bytes = os.fstat(file.fileno()).st_size
    data = os.pread(file.fileno(), size_bytes, 0) if hasattr(os, "pread") else file.read()
    file.seek(0)
    return data


def _receive_rest(channel: socket.socket, data: bytes, size_bytes: int) -> bytes:
    pieces, missing_bytes = [data], size_bytes - len(data)
    while missing_bytes > 0:
        piece = channel.recv(min(missing_bytes, _RECEIVE_BYTES))
        if not piece:
            raise ConnectionResetError("the router has gone")
        pieces.append(piece)
        missing_bytes -= len(piece)
    return b"".join(pieces)


def _answer(peek: Peek, size_bytes: int = 0) -> Answer:
    return Answer(peek.model, peek.stream, peek.keep_alive_s, size_bytes=size_bytes)


def _work(question: Question, source: IO[bytes] | bytes, files: list[IO[bytes]]) -> list[bytes]:
    """Return the answer and what follows it."""
    followed_by: list[bytes] = []
    try:
        if question.change is None:
            answer = _answer(peek_into(source, question.form_type))
        elif len(files) == _MAX_FILES:
            change = question.change
            answer = _answer(*change_into_file(source, question.form_type, change, files[1]))
        else:
            write = followed_by.append
            answer = _answer(*change_body(source, question.form_type, question.change, write))
    except BadRequestError as error:
        followed_by = []
        answer = Answer(error=error.message, param=error.param)
    except OSError as error:
        followed_by = []
        answer = Answer(error=f"the body could not be kept on disk: {error.strerror}")
    return [msgspec.json.encode(answer), b"\n", *followed_by]


if sys.platform != "win32":

    def _serve(channel: socket.socket) -> None:
        while True:
            text, descriptors, _flags, _address = socket.recv_fds(
                channel, FIRST_QUESTION_BYTES, _MAX_FILES
            )
            if not text:
                return
            while b"\n" not in text:
                more = channel.recv(_RECEIVE_BYTES)
                if not more:
                    return
                text += more
            line, _, data = text.partition(b"\n")
            question = msgspec.json.decode(line, type=Question)
            with contextlib.ExitStack() as stack:
                files: list[IO[bytes]] = [
                    stack.enter_context(os.fdopen(one, "r+b", buffering=0)) for one in descriptors
                ]
                data = data if files else _receive_rest(channel, data, question.size_bytes)
                source = files[0] if files else data
                channel.sendall(b"".join(_work(question, source, files)))

    def main() -> None:
        """Answer until the router is gone."""
        # The form parser's opinion of what it gets is in the answers.
        logging.disable()
        with socket.socket(fileno=0) as channel, contextlib.suppress(KeyboardInterrupt, OSError):
            _serve(channel)

    if __name__ == "__main__":
        main()
