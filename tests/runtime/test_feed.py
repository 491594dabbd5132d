import json
import threading
from typing import Any

import msgspec
import pytest

from llama_router.runtime.feed import (
    FOLLOWER_MAX_COUNT,
    REQUEST,
    EventsDropped,
    Feed,
    FeedEvent,
    LoadProgress,
    QueueChanged,
    RequestStarted,
    StateChanged,
)


def test_nobody_is_told_while_nobody_follows() -> None:
    feed = Feed()
    seen = [feed.is_followed]
    feed.state_changed("a", "unloaded", "starting", "wanted")
    follower = feed.subscribe(lambda: None)
    seen.append(feed.is_followed)
    assert seen == [False, True]
    assert follower.take() == []


def test_followers_get_what_happens_from_then_on_each_for_itself() -> None:
    feed = Feed()
    first = feed.subscribe(lambda: None)
    feed.publish(QueueChanged(1.0, "a", 2, 1))
    second = feed.subscribe(lambda: None)
    feed.publish(LoadProgress(2.0, "a", 0.5))
    assert first.take() == [QueueChanged(1.0, "a", 2, 1), LoadProgress(2.0, "a", 0.5)]
    assert first.take() == []
    assert second.take() == [LoadProgress(2.0, "a", 0.5)]


def test_a_change_of_state_carries_its_reason_and_the_time() -> None:
    feed = Feed()
    follower = feed.subscribe(lambda: None)
    feed.state_changed("a", "ready", "stopping", "swap for b")
    (event,) = follower.take()
    assert isinstance(event, StateChanged)
    assert (event.model, event.old, event.new) == ("a", "ready", "stopping")
    assert event.reason == "swap for b"
    assert event.time_s > 1.7e9


def test_a_follower_is_woken_once_for_all_that_waits() -> None:
    wakes: list[int] = []
    feed = Feed()
    follower = feed.subscribe(lambda: wakes.append(1))
    for number in range(3):
        feed.publish(QueueChanged(0.0, "a", number, 0))
    assert len(wakes) == 1
    follower.take()
    feed.publish(QueueChanged(0.0, "a", 0, 0))
    assert len(wakes) == 2


def test_one_who_closes_is_forgotten_and_may_do_so_twice() -> None:
    feed = Feed()
    stays, goes = feed.subscribe(lambda: None), feed.subscribe(lambda: None)
    goes.close()
    goes.close()
    assert feed.is_followed
    feed.publish(LoadProgress(0.0, "a", 1.0))
    assert goes.take() == []
    assert len(stays.take()) == 1
    stays.close()
    assert not feed.is_followed


def test_a_slow_follower_loses_the_oldest_and_is_told_how_many() -> None:
    feed = Feed()
    follower = feed.subscribe(lambda: None)
    for number in range(FOLLOWER_MAX_COUNT + 7):
        feed.publish(QueueChanged(float(number), "a", number, 0))
    events = follower.take()
    assert events[0] == EventsDropped(7.0, "", 7)
    assert events[1] == QueueChanged(7.0, "a", 7, 0)
    assert len(events) == 1 + FOLLOWER_MAX_COUNT
    feed.publish(QueueChanged(0.0, "a", 0, 0))
    assert len(follower.take()) == 1


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (StateChanged(1.5, "a", "x", "y", "z"), {"old": "x", "new": "y", "reason": "z"}),
        (LoadProgress(1.5, "a", 0.5), {"fraction": 0.5}),
        (QueueChanged(1.5, "a", 3, 1), {"waiting": 3, "in_flight": 1}),
        (EventsDropped(1.5, "a", 3), {"count": 3}),
    ],
    ids=["state", "progress", "queue", "dropped"],
)
def test_an_event_says_what_it_is(
    event: FeedEvent, fields: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    found = json.loads(msgspec.json.encode(event))
    assert found == {"kind": request.node.callspec.id, "time_s": 1.5, "model": "a", **fields}


def test_events_come_whole_and_in_order_to_another_thread() -> None:
    count = 20_000
    news = threading.Event()
    feed = Feed()
    follower = feed.subscribe(news.set)
    seen: list[float] = []
    dropped: list[int] = []

    def follow() -> None:
        while sum(dropped) + len(seen) < count:
            news.wait(60.0)
            news.clear()
            for event in follower.take():
                if isinstance(event, EventsDropped):
                    dropped.append(event.count)
                else:
                    seen.append(event.time_s)

    thread = threading.Thread(target=follow, name="follower", daemon=True)
    thread.start()
    for number in range(count):
        feed.publish(LoadProgress(float(number), "a", 0.0))
    thread.join(60.0)
    assert not thread.is_alive()
    assert seen == sorted(seen)
    assert sum(dropped) + len(seen) == count


def test_who_follows_one_thing_is_not_told_of_another_and_publishers_know() -> None:
    begun: list[int] = []
    feed = Feed(lambda: begun.append(1))
    requests = feed.subscribe(lambda: None, frozenset({REQUEST}))
    assert (feed.is_followed, feed.follows_requests, begun) == (False, True, [])
    models = feed.subscribe(lambda: None)
    assert (feed.is_followed, begun) == (True, [1])
    started = RequestStarted(1.0, "a", 7, "ann")
    feed.publish(started)
    feed.publish(QueueChanged(1.0, "a", 1, 0))
    assert requests.take() == [started]
    assert models.take() == [QueueChanged(1.0, "a", 1, 0)]
    requests.close()
    assert (feed.is_followed, feed.follows_requests) == (True, False)


def test_whoever_loses_events_is_told_whatever_it_follows() -> None:
    feed = Feed()
    follower = feed.subscribe(lambda: None, frozenset({REQUEST}))
    for number in range(FOLLOWER_MAX_COUNT + 2):
        feed.publish(RequestStarted(1.0, "a", number, ""))
    first, *rest = follower.take()
    assert first == EventsDropped(1.0, "", 2)
    assert len(rest) == FOLLOWER_MAX_COUNT
