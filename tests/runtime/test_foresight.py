import asyncio
from collections.abc import Callable

import pytest

from llama_router.core.events import Event, LoadRequested, RequestArrived
from llama_router.runtime import foresight as foresights
from llama_router.runtime.foresight import Foresight


class Looks:
    """Looks at models when a test lets it, and keeps what is posted."""

    def __init__(self, *names: str) -> None:
        self.unknown = set(names)
        self.asked: list[str] = []
        self.posted: list[Event] = []
        self.may_end = asyncio.Event()
        self.fault: Callable[[], Exception] | None = None
        self.has_posted = asyncio.Event()

    async def look(self, name: str) -> None:
        self.asked.append(name)
        await self.may_end.wait()
        if self.fault is not None:
            raise self.fault()
        self.unknown.discard(name)

    def post(self, event: Event) -> None:
        self.posted.append(event)
        self.has_posted.set()

    async def until_posted(self) -> None:
        async with asyncio.timeout(20):
            await self.has_posted.wait()


def arrival(number: int, model: str = "a") -> RequestArrived:
    return RequestArrived(number, model, True, False)


@pytest.mark.asyncio
async def test_known_models_are_none_of_its_business() -> None:
    looks = Looks("b")
    foresight = Foresight(looks.unknown, looks.look, looks.post)

    assert not foresight.holds(arrival(1))
    assert not foresight.drops(1)
    assert looks.asked == []


@pytest.mark.asyncio
async def test_requests_wait_for_one_look_and_keep_their_order() -> None:
    looks = Looks("a", "b")
    foresight = Foresight(looks.unknown, looks.look, looks.post)
    events: list[RequestArrived | LoadRequested] = [arrival(1), LoadRequested(2, "a"), arrival(3)]

    assert all(foresight.holds(event) for event in events)
    assert (foresight.held_count("a"), foresight.held_count("b")) == (3, 0)
    looks.may_end.set()
    await looks.until_posted()

    assert looks.posted == events
    assert looks.asked == ["a"]
    assert looks.unknown == {"b"}
    assert not foresight.holds(arrival(4))


@pytest.mark.asyncio
async def test_nobody_overtakes_who_was_held() -> None:
    looks = Looks("a")
    foresight = Foresight(looks.unknown, looks.look, looks.post)
    foresight.holds(arrival(1))
    looks.unknown.clear()

    assert foresight.holds(arrival(2))
    looks.may_end.set()
    await looks.until_posted()

    assert looks.posted == [arrival(1), arrival(2)]


@pytest.mark.asyncio
async def test_who_leaves_meanwhile_never_gets_to_the_core() -> None:
    looks = Looks("a")
    foresight = Foresight(looks.unknown, looks.look, looks.post)
    foresight.holds(arrival(1))
    foresight.holds(arrival(2))

    assert foresight.drops(1)
    assert not foresight.drops(1)
    looks.may_end.set()
    await looks.until_posted()

    assert looks.posted == [arrival(2)]


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [None, lambda: RuntimeError("ours")])
async def test_look_that_fails_or_hangs_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Exception] | None
) -> None:
    looks = Looks("a")
    if fault is None:
        monkeypatch.setattr(foresights, "LOOK_MAX_S", 0.01)
    else:
        looks.fault = fault
        looks.may_end.set()
    foresight = Foresight(looks.unknown, looks.look, looks.post)

    foresight.holds(arrival(1))
    await looks.until_posted()

    assert looks.posted == [arrival(1)]


@pytest.mark.asyncio
async def test_closed_it_posts_nothing() -> None:
    looks = Looks("a")
    foresight = Foresight(looks.unknown, looks.look, looks.post)
    foresight.holds(arrival(1))
    (task,) = foresight._tasks

    foresight.close()
    await asyncio.wait((task,))

    assert looks.posted == []
