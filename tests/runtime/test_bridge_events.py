import json
import logging
from typing import Any

import pytest

from llama_router.engines.logs import LogStore
from llama_router.proxy.gate import Ended
from llama_router.runtime.bridge_events import EventLines
from llama_router.runtime.feed import LOG, REQUEST, DownloadChanged, Feed, QueueChanged
from llama_router.runtime.history import request_ended

ROUTER_LOG = logging.getLogger("llama_router.somewhere")


def taken(lines: EventLines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.take()]


def test_lines_of_engines_and_of_the_router_are_events_while_somebody_wants_them() -> None:
    feed, logs, wakes = Feed(), LogStore(), []
    everything = EventLines(feed, logs, None, lambda: wakes.append(1), frozenset({LOG}))
    of_b = EventLines(feed, logs, "b", lambda: None, frozenset({LOG}))
    logs.append("a", "loaded [b] \udcff")
    logs.append("b", "hello")
    ROUTER_LOG.warning("%s crashed", "a")
    feed.publish(QueueChanged(1.0, "a", 1, 0))
    found = [(one["kind"], one["model"], one["line"]) for one in taken(everything)]
    assert found == [
        ("log", "a", "loaded [b] ?"),
        ("log", "b", "hello"),
        ("log", "", "warning: a crashed"),
    ]
    assert [one["line"] for one in taken(of_b)] == ["hello"]
    assert len(wakes) == 1
    everything.close()
    of_b.close()
    logs.append("b", "unheard")
    assert (taken(everything), taken(of_b)) == ([], [])
    assert not logging.getLogger("llama_router").handlers


def test_a_long_line_and_a_record_that_cannot_be_formatted_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    lines = EventLines(Feed(), LogStore(), None, lambda: None, frozenset({LOG}))
    try:
        ROUTER_LOG.warning("%d", "no number")
        ROUTER_LOG.warning("x" * 10_000)
        (line,) = taken(lines)
        assert len(line["line"]) == 4096
    finally:
        lines.close()


def test_requests_are_told_without_what_was_asked() -> None:
    feed = Feed()
    lines = EventLines(feed, LogStore(), "a", lambda: None, frozenset({REQUEST}))
    assert (feed.is_followed, feed.follows_requests) == (False, True)
    ended = Ended("a", "ann", "-.-", 2.0, 0.5, 1.0, 3, 4, "the prompt", "/v1/completions", 200, 7)
    feed.publish(request_ended(ended, 5.0))
    feed.publish(
        DownloadChanged(1.0, "a", download="1", state="running", done_bytes=1, total_bytes=2)
    )
    text = lines.take()
    assert "prompt" not in text[0]
    (told,) = [json.loads(line) for line in text]
    assert (told["kind"], told["request_id"], told["end"]) == ("request_ended", 7, "-.-")
    assert (told["tokens_out"], told["path"], told["status"]) == (4, "/v1/completions", 200)
    lines.close()
    assert not feed.follows_requests
