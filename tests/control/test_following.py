import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import pytest

from llama_router.control import following
from llama_router.control.facade import ControlError, Follower
from llama_router.control.following import FOLLOWERS_MAX_COUNT, Following, Streams

pytestmark = pytest.mark.asyncio


class Source:
    """Something to follow."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.wake: Callable[[], object] = lambda: None
        self.is_closed = False

    def subscribe(self, wake: Callable[[], object]) -> Follower:
        self.wake = wake
        return self

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.wake()

    def take(self) -> Sequence[str]:
        lines, self.lines = self.lines, []
        return lines

    def close(self) -> None:
        self.is_closed = True


class Client:
    """Who gets the answer. ``left`` is set when it goes."""

    def __init__(self, response: Following) -> None:
        self.left = asyncio.Event()
        self.bodies: asyncio.Queue[bytes | None] = asyncio.Queue()
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        self.answering = asyncio.create_task(
            response(scope, self._receive, self._send), name="answer"
        )

    async def text(self) -> str | None:
        """The next part of the body that says anything; None for its proper end."""
        async with asyncio.timeout(60):
            while (part := await self.bodies.get()) == b"":
                pass
        return None if part is None else part.decode()

    async def _receive(self) -> MutableMapping[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.bodies.put_nowait(message["body"])
            if not message.get("more_body"):
                self.bodies.put_nowait(None)


def follow(streams: Streams, source: Source, heartbeat: str = "") -> Following:
    return Following(
        streams,
        source.subscribe,
        render="".join,
        media_type="text/plain",
        heartbeat=heartbeat,
    )


async def test_lines_are_sent_as_they_come_and_none_is_missed_before_the_first_read() -> None:
    source = Source()
    response = follow(Streams(), source)
    source.say("1")
    client = Client(response)
    assert await client.text() == "1"
    source.say("2")
    source.say("3")
    assert await client.text() == "23"
    client.left.set()
    await client.answering
    assert source.is_closed


async def test_the_end_of_the_router_is_a_proper_end_after_all_that_was_to_say() -> None:
    source, streams = Source(), Streams()
    client = Client(follow(streams, source))
    source.say("1")
    assert await client.text() == "1"
    source.lines.append("last")
    streams.end()
    assert await client.text() == "last"
    assert await client.text() is None
    await client.answering
    assert source.is_closed
    late = Client(follow(streams, Source()))
    assert await late.text() is None
    await late.answering


async def test_silence_is_broken_by_heartbeats_where_they_make_sense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_S", 0.01)
    source = Source()
    client = Client(follow(Streams(), source, heartbeat=":\n\n"))
    assert await client.text() == ":\n\n"
    assert await client.text() == ":\n\n"
    source.say("1")
    async with asyncio.timeout(60):
        while await client.text() != "1":
            pass
    client.left.set()
    await client.answering


async def test_what_is_not_for_the_client_does_not_keep_its_heartbeats_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "HEARTBEAT_S", 0.1)
    source = Source()
    client = Client(follow(Streams(), source, heartbeat=":\n\n"))

    async def wake_always() -> None:
        while True:
            source.wake()
            await asyncio.sleep(0)

    # Of other models something happens all the time.
    waking = asyncio.create_task(wake_always(), name="wake")
    assert await client.text() == ":\n\n"
    assert await client.text() == ":\n\n"
    waking.cancel()
    client.left.set()
    await client.answering


async def test_so_many_follow_and_no_more() -> None:
    streams = Streams()
    sources = [Source() for _ in range(FOLLOWERS_MAX_COUNT)]
    clients = [Client(follow(streams, source)) for source in sources]
    refused = Source()
    with pytest.raises(ControlError) as raised:
        follow(streams, refused)
    assert (raised.value.status, raised.value.code) == (503, "unavailable")
    clients[0].left.set()
    await clients[0].answering
    one_more = Client(follow(streams, refused))
    streams.end()
    for client in (*clients[1:], one_more):
        await client.answering
    assert all(source.is_closed for source in (*sources, refused))
