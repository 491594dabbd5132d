import asyncio
import itertools
from typing import Any

import pytest

from llama_router.config.schema import PeerEntry
from llama_router.proxy.gate import Caller, Target
from llama_router.runtime.peer_lists import PeerListError
from llama_router.runtime.peers import Peers, base_url
from llama_router.runtime.selectors import Standing
from tests.support.peers import config_of
from tests.support.scripted_engine import ScriptedEngine, answer
from tests.support.waiter import Waiter

pytestmark = pytest.mark.asyncio
DEADLINE_S = 20.0
URL = "http://127.0.0.1:9"


class Asked:
    """Tells what it is told to, in turn, and the last of it for ever."""

    def __init__(self, *outcomes: Any) -> None:  # noqa: ANN401 - lists of names, and errors
        self._outcomes = list(outcomes)
        self.entries: list[PeerEntry] = []
        self._told = asyncio.Queue[None]()

    async def __call__(self, entry: PeerEntry) -> tuple[str, ...]:
        self.entries.append(entry)
        self._told.put_nowait(None)
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return tuple(outcome)

    async def asked(self, count: int) -> None:
        """Wait until it has been asked so often, and the answer been taken."""
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(count):
                await self._told.get()
            await asyncio.sleep(0)


def where(peers: Peers, name: str) -> tuple[str, str, str | None] | None:
    """The peer, the model's name here, and what its body is made to say."""
    target = peers.target(name)
    if target is None:
        return None
    assert target.rewrite is not None
    return target.door.name, target.model, target.rewrite.model  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example/v1", "https://a.example"),
        ("https://a.example/api/v1/", "https://a.example/api"),
        ("https://a.example/v1beta", "https://a.example/v1beta"),
    ],
)
async def test_what_every_path_begins_with_is_not_said_twice(url: str, base: str) -> None:
    assert base_url(url) == base


async def test_a_name_is_the_first_peers_that_has_it() -> None:
    peers = Peers()
    peers.follow(
        config_of(
            a={"url": URL, "models": ["m", "a/x"]},
            b={"url": URL, "models": ["m", "n"]},
        )
    )
    assert where(peers, "m") == ("a", "m", None)
    assert where(peers, "n") == ("b", "n", None)
    assert where(peers, "b/m") == ("b", "b/m", "m")
    assert where(peers, "a/a/x") == ("a", "a/a/x", "a/x")
    assert where(peers, "a/x") == ("a", "a/x", None)
    assert where(peers, "a/n") is None
    assert where(peers, "nobody") is None
    assert list(peers.listed()) == [("m", "a"), ("a/x", "a"), ("b/m", "b"), ("n", "b")]
    for name, _ in peers.listed():
        assert where(peers, name) is not None
    assert peers.target("m") is peers.target("m")
    assert peers.standing("m") == Standing(is_loaded=True)
    assert peers.standing("nobody") is None
    await peers.close()


async def test_a_peer_without_models_is_asked_for_them_again_and_again() -> None:
    asked = Asked(["a"], PeerListError("gone"), PeerListError("gone"), ["b", "c"])
    peers = Peers(ask=asked, list_interval_s=0.0)
    peers.follow(config_of(far={"url": URL}))
    assert list(peers.listed()) == []
    await asked.asked(1)
    assert list(peers.listed()) == [("a", "far")]
    await asked.asked(1)
    # What it had last it may still have.
    assert list(peers.listed()) == [("a", "far")]
    assert peers.standing("a") == Standing(is_failing=True)
    await asked.asked(2)
    assert list(peers.listed()) == [("b", "far"), ("c", "far")]
    assert where(peers, "a") is None
    assert peers.standing("b") == Standing(is_loaded=True)
    await peers.close()
    await peers.close()


async def test_a_peer_with_models_is_not_asked() -> None:
    asked = Asked(["other"])
    peers = Peers(ask=asked, list_interval_s=0.0)
    peers.follow(config_of(far={"url": URL, "models": ["m"]}, near={"url": URL}))
    await asked.asked(3)
    assert {entry.models for entry in asked.entries} == {()}
    assert list(peers.listed()) == [("m", "far"), ("other", "near")]
    await peers.close()


async def test_a_reload_keeps_peers_that_stay_as_they_are() -> None:
    asked = Asked(["a"])
    peers = Peers(ask=asked)
    peers.follow(config_of(x={"url": URL}, y={"url": URL, "models": ["m"]}, z={"url": URL}))
    await asked.asked(2)
    kept, changed = peers.target("m"), peers.target("a")
    peers.follow(config_of(y={"url": URL, "models": ["m"]}, x={"url": URL, "api_key": "k"}))
    assert peers.target("m") is kept
    # Another key: who knows what it has now.
    assert peers.target("a") is None
    await asked.asked(1)
    assert isinstance(peers.target("a"), Target)
    assert peers.target("a") is not changed
    assert list(peers.listed()) == [("m", "y"), ("a", "x")]
    assert len(asyncio.all_tasks()) == 2
    await peers.close()
    assert len(asyncio.all_tasks()) == 1


async def test_other_settings_of_a_peer_do_not_hide_its_models_until_it_is_asked_again() -> None:
    asked = Asked(["a"])
    peers = Peers(ask=asked)
    peers.follow(config_of(x={"url": URL}))
    await asked.asked(1)
    peers.follow(config_of(x={"url": URL, "read_timeout_s": 5}))
    target = peers.target("a")
    assert target is not None
    assert target.timeouts is not None
    assert target.timeouts.read_s == 5
    await asked.asked(1)
    for other in ({"url": f"{URL}/other"}, {"url": URL, "api_key": "k"}, {"url": URL}):
        peers.follow(config_of(x=other))
        assert peers.target("a") is None
        await asked.asked(1)
    peers.follow(config_of(x={"url": URL, "models": ["m"]}))
    assert [name for name, _ in peers.listed()] == ["m"]
    await peers.close()


async def test_those_who_watch_are_told_of_each_request_that_a_peer_gets() -> None:
    told: list[tuple[int, str, str]] = []
    peers = Peers(
        request_ids=itertools.count(7),
        tell_started=lambda number, model, caller: told.append((number, model, caller.key)),
    )
    peers.follow(config_of(far={"url": URL, "models": ["m", "n"]}))
    peer = target_of(peers, "m").door
    assert peer is not None
    for model, waiter in (("m", Waiter()), ("far/n", Waiter())):
        caller = Caller("ann")
        assert peer.submit(waiter, model, may_load=True, wants_notices=False, caller=caller)
    assert told == [(7, "m", "ann"), (8, "far/n", "ann")]
    aside = peer.submit(Waiter(), "m", may_load=True, wants_notices=False, takes_slot=False)
    assert aside == 9
    assert peers.in_flight_count == 3
    for number in (7, 8, 9):
        peer.finished(number)
    await peers.drain(0.0)
    late = Waiter()
    assert peer.submit(late, "m", may_load=True, wants_notices=False) is None
    assert late.log == ["shutting_down"]
    assert len(told) == 2
    await peers.close()


def target_of(peers: Peers, name: str) -> Target:
    target = peers.target(name)
    assert target is not None
    return target


async def test_lists_are_asked_for_over_http_with_the_peers_key() -> None:
    models = answer(b'{"object":"list","data":[{"id":"m","created":1},{"id":"n"}]}')
    async with asyncio.timeout(DEADLINE_S), ScriptedEngine(models) as remote:
        peers = Peers()
        url = f"http://127.0.0.1:{remote.port}/api/v1"
        peers.follow(config_of(far={"url": url, "api_key": "secret"}))
        await peers.asked.wait()
        assert list(peers.listed()) == [("m", "far"), ("n", "far")]
        seen = remote.requests[0]
        assert seen.line == b"GET /api/v1/models HTTP/1.1"
        assert seen.fields[b"authorization"] == b"Bearer secret"
        await peers.close()
