"""What a client is told of an error, and what is written down of a request that has ended."""

import asyncio
import logging
from http import HTTPStatus
from time import monotonic

from llama_router.dialects import usage
from llama_router.proxy import answer
from llama_router.proxy.answer import Framing
from llama_router.proxy.body import Body
from llama_router.proxy.client import Client
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import RequestError
from llama_router.proxy.gate import Ended
from llama_router.proxy.head import RequestHead
from llama_router.proxy.limits import MAX_PROMPT_BYTES
from llama_router.proxy.notice_stream import NoticeStream

_log = logging.getLogger(__name__)


def log_end(request: RequestHead, model: str, status: int, end: str) -> None:
    """Write one line to the log, without anything that the client has sent but the path."""
    _log.log(
        logging.DEBUG if end == "-.-" else logging.INFO,
        "%s %s model=%s status=%d end=%s",
        request.method.decode("ascii", "backslashreplace"),
        request.path.decode("ascii", "backslashreplace"),
        model or "-",
        status,
        end,
    )


def tell_error(
    error: RequestError,
    client: Client,
    request: RequestHead,
    connection: EngineConnection | None,
    *,
    stream: NoticeStream | None,
    framing: Framing,
    has_begun: bool,
    is_waiting: bool,
) -> tuple[bool, bool]:
    """Tell a client of an error: as an answer, as an event, or by breaking off.

    ``has_begun``: the client has a head already; ``is_waiting``: the engine has said nothing yet.
    Returns whether its connection is to be closed, and whether that has to be seen as a break.
    """
    write = client.transport.write
    if not has_begun:
        close = client.wants_close or error.closes
        head_only = request.method == b"HEAD"
        write(answer.error_response(error, close=close, head_only=head_only))
        return close, False
    if stream is not None and (is_waiting or stream.is_collecting):
        stream.end_with(error)
        return framing is Framing.CLOSE, False
    can_say = connection is not None and connection.at_event_boundary
    if can_say:
        own_framing = Framing.CLOSE if framing is Framing.CLOSE else Framing.CHUNKED
        write(answer.error_event(error, own_framing))
    # Without the last chunk, or short of the length: the client sees that it is cut.
    return True, framing is Framing.CLOSE and not can_say


def ended_now(
    model: str,
    key: str,
    end: str,
    *,
    path: bytes,
    status: int,
    request_id: int | None,
    times_s: tuple[float, float, float],
    whole: EngineConnection | None,
    prompt: bytes | None = None,
) -> Ended:
    """Return what the history gets to know.

    ``times_s`` are those of its arrival, its dispatch and its first byte, on the monotonic clock; 0
    for what did not happen.
    ``whole`` is the connection that has just brought the whole of an answer, if there was one;
    ``prompt`` is the beginning of the request's JSON, if that is to be kept.
    """
    arrived_s, dispatched_s, first_byte_s = times_s
    tokens_in = tokens_out = None
    if whole is not None and status == HTTPStatus.OK:
        tokens_in, tokens_out = usage.token_counts(whole.tail())
    return Ended(
        model,
        key,
        end,
        monotonic() - arrived_s,
        dispatched_s - arrived_s if dispatched_s else None,
        first_byte_s - arrived_s if first_byte_s else None,
        tokens_in,
        tokens_out,
        None if prompt is None else prompt.decode("utf-8", "replace"),
        path.decode("latin-1"),
        status,
        request_id or 0,
    )


async def prompt_of(body: Body) -> bytes:
    """Return the beginning of a body, for the history."""
    file = body.file
    if file is None:
        return body.data[:MAX_PROMPT_BYTES]

    def read() -> bytes:
        file.seek(0)
        data = file.read(MAX_PROMPT_BYTES)
        file.seek(0)
        return data

    return await asyncio.get_running_loop().run_in_executor(None, read)
