import asyncio
import threading

import pytest

from llama_router.runtime.feed import FeedEvent, FeedFollower, LoadProgress, QueueChanged
from llama_router.runtime.pulse import Pulse, Reading

pytestmark = pytest.mark.asyncio


class Followed:
    """A pulse with readings that the test writes, followed from another thread."""

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.read_count = 0
        self.pulse = Pulse(self._read)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def _read(self) -> dict[str, Reading]:
        self.read_count += 1
        return self.readings

    def follow(self) -> FeedFollower:
        wake = self._news.set
        followers: list[FeedFollower] = []

        def subscribe() -> None:
            followers.append(
                self.pulse.feed.subscribe(lambda: self._loop.call_soon_threadsafe(wake))
            )

        thread = threading.Thread(target=subscribe, name="follower")
        thread.start()
        thread.join()
        return followers[0]

    async def events(self, follower: FeedFollower) -> list[FeedEvent]:
        async with asyncio.timeout(60.0):
            await self._news.wait()
        self._news.clear()
        return follower.take()


def told(events: list[FeedEvent]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, QueueChanged):
            found.append((event.model, event.waiting, event.in_flight))
        elif isinstance(event, LoadProgress):
            found.append((event.model, event.fraction))
    return found


async def test_nothing_is_read_while_nobody_follows() -> None:
    followed = Followed()
    await asyncio.sleep(0)
    assert followed.read_count == 0
    followed.pulse.close()


async def test_a_follower_begins_with_how_things_stand_and_then_hears_of_changes() -> None:
    followed = Followed()
    followed.readings = {"a": Reading(2, 1), "b": Reading(1, 0, 0.25), "c": Reading()}
    follower = followed.follow()
    assert told(await followed.events(follower)) == [("a", 2, 1), ("b", 1, 0), ("b", 0.25)]
    followed.readings = {"a": Reading(2, 1), "b": Reading(1, 0, 0.5)}
    followed.pulse.look()
    assert told(follower.take()) == [("b", 0.5)]
    followed.pulse.look()
    assert follower.take() == []
    # A model that neither runs nor is waited for any more has nobody.
    followed.readings = {}
    followed.pulse.look()
    assert told(follower.take()) == [("a", 0, 0), ("b", 0, 0)]
    followed.pulse.close()


async def test_one_who_comes_later_does_not_cost_the_first_the_news_that_a_model_is_quiet() -> None:
    followed = Followed()
    followed.readings = {"a": Reading(1, 0), "b": Reading(0, 1)}
    first = followed.follow()
    assert told(await followed.events(first)) == [("a", 1, 0), ("b", 0, 1)]
    second = followed.follow()
    # The callback that the second one has asked for comes first.
    await asyncio.sleep(0)
    followed.readings = {"b": Reading(0, 1)}
    followed.pulse.look()
    assert told(first.take()) == [("a", 0, 0), ("b", 0, 1)]
    assert ("b", 0, 1) in told(second.take())
    followed.pulse.close()


async def test_it_looks_again_by_itself_and_stops_when_the_last_one_leaves() -> None:
    followed = Followed()
    followed.readings = {"a": Reading(1, 0)}
    follower = followed.follow()
    assert told(await followed.events(follower)) == [("a", 1, 0)]
    followed.readings = {"a": Reading(0, 1)}
    assert told(await followed.events(follower)) == [("a", 0, 1)]
    follower.close()
    followed.pulse.close()
    read_count = followed.read_count
    followed.pulse._beat()
    assert followed.read_count == read_count
