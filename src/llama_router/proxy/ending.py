"""What is written down of a request that has ended."""

import logging
from time import monotonic

from llama_router.dialects import usage
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.gate import Ended
from llama_router.proxy.head import RequestHead

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


def ended_now(
    model: str,
    key: str,
    end: str,
    *,
    arrived_s: float,
    dispatched_s: float,
    first_byte_s: float,
    whole: EngineConnection | None,
) -> Ended:
    """Return what the history gets to know. The times are monotonic, 0 for what did not happen.

    ``whole`` is the connection that has just brought the whole of a good answer, if there was one.
    """
    tokens_in, tokens_out = usage.token_counts(whole.tail()) if whole is not None else (None, None)
    return Ended(
        model,
        key,
        end,
        monotonic() - arrived_s,
        dispatched_s - arrived_s if dispatched_s else None,
        first_byte_s - arrived_s if first_byte_s else None,
        tokens_in,
        tokens_out,
    )
