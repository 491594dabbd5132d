"""Bodies with a model's filters applied: at once if that is quick, else by the inspector."""

import asyncio
import contextlib
import tempfile
from typing import IO

import msgspec

from llama_router.proxy.body import Body, BodyBudget, close_aside
from llama_router.proxy.errors import InternalError
from llama_router.proxy.inspector import BodyInspector
from llama_router.proxy.inspector_child import Change, change_body
from llama_router.proxy.peek import Peek, is_quick_to_peek
from llama_router.proxy.rewrite import (
    QUICK_MEMBER_COUNT,
    Rewrite,
    TooManyMembersError,
    rewrite_json,
)
from llama_router.proxy.rewrite_form import MAX_GROWTH_BYTES, form_type_of, new_boundary

# Each part takes some 15 microseconds, and fifty bytes make one; it has been walked through before.
_QUICK_FORM_BYTES = 2 * 1024


class Rewritten(msgspec.Struct):
    """The new body, what it says, and its Content-Type if it is a form."""

    body: Body
    peek: Peek
    form_type: bytes | None


def rewrite_now(
    body: Body, form_type: bytes | None, rewrite: Rewrite, peek: Peek, budget: BodyBudget
) -> Rewritten | None:
    """Return ``body`` with the filters applied, in its place; None if that would take long.

    Raises a RequestError; ``body`` is then as it was.
    """
    if body.file is not None or not is_quick_to_peek(body.data, form_type):
        return None
    pieces: list[bytes] = []
    if form_type is None:
        try:
            pieces, found = rewrite_json(
                body.data, rewrite, peek, max_member_count=QUICK_MEMBER_COUNT
            )
        except TooManyMembersError:
            return None
        return _in_memory(body, b"".join(pieces), found, None, budget)
    if body.size_bytes > _QUICK_FORM_BYTES:
        return None
    change = _change(rewrite, peek, body, form_type)
    found, _ = change_body(body.data, form_type, change, pieces.append)
    return _in_memory(body, b"".join(pieces), found, form_type_of(change.boundary), budget)


async def rewrite_aside(
    body: Body,
    form_type: bytes | None,
    rewrite: Rewrite,
    peek: Peek,
    budget: BodyBudget,
    inspector: BodyInspector,
) -> Rewritten:
    """Do as ``rewrite_now`` does, without holding the event loop."""
    change = _change(rewrite, peek, body, form_type)
    new_type = form_type_of(change.boundary) if form_type is not None else None
    if body.file is None:
        changed = await inspector.change(body.data, form_type, change, None)
        return _in_memory(body, changed.data, changed.peek, new_type, budget)
    budget.take_on_disk(change.limit_bytes)
    held_bytes = change.limit_bytes
    target: IO[bytes] | None = None
    try:
        target = await _temporary_file()
        changed = await inspector.change(body.file, form_type, change, target)
        budget.give_on_disk(held_bytes - changed.size_bytes)
        held_bytes = 0
    finally:
        if held_bytes:
            budget.give_on_disk(held_bytes)
            if target is not None:
                close_aside(target)
    body.release()
    new_body = Body(budget, b"", target, changed.size_bytes)
    return Rewritten(new_body, changed.peek, new_type)


def _change(rewrite: Rewrite, peek: Peek, body: Body, form_type: bytes | None) -> Change:
    growth_bytes = rewrite.added_bytes() + (MAX_GROWTH_BYTES if form_type is not None else 0)
    boundary = new_boundary() if form_type is not None else b""
    return Change(rewrite, peek, body.size_bytes + growth_bytes, boundary)


def _in_memory(
    body: Body, data: bytes, peek: Peek, form_type: bytes | None, budget: BodyBudget
) -> Rewritten:
    budget.take(len(data))
    body.release()
    return Rewritten(Body(budget, data, None, len(data)), peek, form_type)


async def _temporary_file() -> IO[bytes]:
    """Return an unlinked file. Raises InternalError."""

    def make() -> IO[bytes]:
        return tempfile.TemporaryFile(prefix="llama-router-body-")

    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except OSError as error:
        raise InternalError(
            f"the request's body could not be kept on disk: {error.strerror}"
        ) from None
    except asyncio.CancelledError:
        making.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(made: "asyncio.Future[IO[bytes]]") -> None:
    with contextlib.suppress(OSError):
        made.result().close()
