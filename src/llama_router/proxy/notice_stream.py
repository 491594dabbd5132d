"""A stream that the router itself begins, for a client that waits, and that the answer joins."""

import time
from collections.abc import Callable

from llama_router.dialects import openai
from llama_router.proxy import answer
from llama_router.proxy.answer import Framing
from llama_router.proxy.client import Client
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import RequestError
from llama_router.proxy.head import RequestHead, ResponseHead
from llama_router.proxy.limits import MAX_ERROR_BODY_BYTES


class NoticeStream:
    """One such stream. ``framing`` is how the client is told where it ends.

    ``is_collecting``: the engine's answer is none that could follow on notices; it is collected, to
    be told as one event.
    """

    __slots__ = ("_client", "_collected", "_collected_bytes", "_id", "_model", "framing")

    def __init__(self, client: Client, request: RequestHead, model: str) -> None:
        self._client = client
        self._model = model
        self._id = f"chatcmpl-notice-{id(self):x}-{int(time.time()):x}"
        self._collected: list[bytes] | None = None
        self._collected_bytes = 0
        head, self.framing = answer.stream_head(request, close=client.wants_close)
        client.transport.write(head)

    @property
    def is_collecting(self) -> bool:
        """See the class."""
        return self._collected is not None

    def say(self, text: str) -> None:
        """Tell the client something, as reasoning."""
        event = openai.sse_reasoning_chunk(self._id, int(time.time()), self._model, text)
        self._client.transport.write(answer.framed(event, self.framing))

    def beat(self) -> None:
        """Show the client, and whoever is in between, that the stream is not dead."""
        self._client.transport.write(answer.heartbeat(self.framing))

    def end_with(self, error: RequestError) -> None:
        """Tell an error and end."""
        self._client.transport.write(answer.error_event(error, self.framing))
        self._client.transport.write(answer.end_of(self.framing))

    def join(
        self, connection: EngineConnection, head: ResponseHead, on_too_long: Callable[[], object]
    ) -> Framing:
        """Let the engine's events follow the notices, or collect its answer.

        Returns the framing of what follows. ``on_too_long``: no more of it is collected.
        """
        connection.relay = write = self._client.transport.write
        if head.status == 200 and head.takes_events:  # noqa: PLR2004
            if head.chunked and self.framing is Framing.CHUNKED:
                self.framing = Framing.RAW
                return self.framing
            connection.decode = True
            if self.framing is Framing.CHUNKED:
                connection.relay = answer.in_chunks(write)
            return self.framing
        collected = self._collected = []
        connection.decode = True

        def collect(data: bytes) -> None:
            collected.append(data)
            self._collected_bytes += len(data)
            if self._collected_bytes > MAX_ERROR_BODY_BYTES:
                on_too_long()

        connection.relay = collect
        return self.framing

    def tell_collected(self, status: int) -> None:
        """Tell what was collected as an error."""
        error = answer.error_from_body(status, b"".join(self._collected or ()))
        self._client.transport.write(answer.error_event(error, self.framing))
