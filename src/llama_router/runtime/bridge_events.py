"""Everything that happens, for one follower, as lines of JSON."""

import logging
import time
from collections.abc import Callable

import msgspec

from llama_router.core.states import PUBLIC_NAMES, State
from llama_router.engines.logs import LogStore
from llama_router.runtime.feed import LOG, EventsDropped, Feed, FeedEvent, LogLine, StateChanged

# The router's own, and what its libraries have to say.
_ROOT_LOGGER = logging.getLogger("llama_router")
_LINE_MAX_CHARS = 4096


class EventLines:
    """The events of a model, or of all (None). Implements Follower."""

    def __init__(
        self,
        feed: Feed,
        logs: LogStore,
        model: str | None,
        wake: Callable[[], object],
        kinds: frozenset[str],
    ) -> None:
        self._model = model
        self._encode = msgspec.json.Encoder().encode
        self._followed = feed.subscribe(wake, kinds)
        self._stop_listening: Callable[[], None] = lambda: None
        self._handler: _Handler | None = None
        if LOG in kinds:
            self._stop_listening = logs.listen(self._on_line)
            if model is None:
                self._handler = _Handler(self._put_line)
                _ROOT_LOGGER.addHandler(self._handler)

    def take(self) -> list[str]:
        """See Follower."""
        return [
            self._encode(_shown(event)).decode()
            for event in self._followed.take()
            if self._is_wanted(event)
        ]

    def close(self) -> None:
        """See Follower."""
        self._followed.close()
        self._stop_listening()
        if self._handler is not None:
            _ROOT_LOGGER.removeHandler(self._handler)

    def _is_wanted(self, event: FeedEvent) -> bool:
        return self._model in (None, event.model) or isinstance(event, EventsDropped)

    def _on_line(self, model: str, line: str) -> None:
        if self._model in (None, model):
            self._put_line(model, line)

    def _put_line(self, model: str, line: str) -> None:
        self._followed.put(LogLine(time.time(), model, line[:_LINE_MAX_CHARS]))


class _Handler(logging.Handler):
    """Passes the router's own log on."""

    def __init__(self, put: Callable[[str, str], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        # Without the traceback: the log has it.
        try:
            self._put("", f"{record.levelname.lower()}: {record.getMessage()}")
        except Exception:  # noqa: BLE001  # a line that cannot be made must not cost a request
            self.handleError(record)


def _shown(event: FeedEvent) -> FeedEvent:
    """Return an event as it can be sent, with the names that the API has for states."""
    if isinstance(event, LogLine):
        # An engine may write what was no text.
        line = event.line.encode("utf-8", "replace").decode()
        return msgspec.structs.replace(event, line=line)
    if not isinstance(event, StateChanged):
        return event
    old, new = PUBLIC_NAMES[State(event.old)], PUBLIC_NAMES[State(event.new)]
    return msgspec.structs.replace(event, old=old, new=new)
