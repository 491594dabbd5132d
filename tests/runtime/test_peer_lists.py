import asyncio
import gzip
import json

import pytest

from llama_router.runtime.peer_lists import (
    MAX_LIST_BYTES,
    MAX_MODEL_COUNT,
    MAX_OBJECT_COUNT,
    PeerListError,
    ask,
    read_list,
)
from tests.support.certificate import server_context, trusting_context
from tests.support.scripted_engine import ScriptedEngine, answer

DEADLINE_S = 20.0
LIST = b'{"data":[{"id":"m"}]}'


def listing(*names: object) -> bytes:
    return json.dumps({"data": [{"id": name, "x": [{}]} for name in names]}).encode()


def test_names_are_taken_and_what_is_none_is_not() -> None:
    assert read_list(
        listing("a/b:Q4", "a/b:Q4", "", "x" * 257, "a\nb", "\x1b[2J", "\u202e", "c")
    ) == (
        "a/b:Q4",
        "c",
    )
    assert len(read_list(listing(*map(str, range(3000))))) == MAX_MODEL_COUNT


def test_what_a_router_has_from_its_own_peers_is_left_out() -> None:
    data = (
        b'{"data":[{"id":"a","kind":"peer"},{"id":"b","kind":"selector"},{"id":"c","kind":[1]},'
        b'{"id":"d","kind":null}]}'
    )
    assert read_list(data) == ("b", "c", "d")


def test_a_list_of_tens_of_thousands_is_not_read_at_all() -> None:
    entries = b",".join(b'{"id":"%x"}' % number for number in range(MAX_OBJECT_COUNT))
    with pytest.raises(PeerListError, match="8000"):
        read_list(b'{"data":[' + entries + b"]}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data":{}}',
        b'{"data":[1]}',
        b'{"data":[{}]}',
        b'{"data":[{"id":1}]}',
        b'{"data":[{"id":"\xff"}]}',
        b'{"data":[' + b"[" * 100_000,
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(PeerListError):
        read_list(data)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("said", "match"),
    [
        (answer(LIST, status=b"500 Oops"), "500"),
        (answer(LIST, status=b"302 Found", fields=b"location: /v1/other\r\n"), "302"),
        (answer(b" " * (MAX_LIST_BYTES + 1) + LIST), "longer"),
        (answer(gzip.compress(LIST), fields=b"content-encoding: gzip\r\n"), "no sense"),
        (b"nonsense\r\n\r\n", "could not be asked"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "could not be asked"),
    ],
)
async def test_whatever_it_does_is_told_in_words(said: bytes, match: str) -> None:
    async with asyncio.timeout(DEADLINE_S), ScriptedEngine(said) as remote:
        with pytest.raises(PeerListError, match=match) as told:
            await ask(f"http://127.0.0.1:{remote.port}", "secret", None)
        assert "secret" not in str(told.value)
        assert len(remote.requests) == 1


@pytest.mark.asyncio
async def test_one_that_is_not_there_is_told_in_words() -> None:
    with pytest.raises(PeerListError, match="could not be asked"):
        await ask("http://127.0.0.1:9", "", None)


@pytest.mark.asyncio
async def test_it_has_to_prove_who_it_is() -> None:
    context = server_context()
    async with asyncio.timeout(DEADLINE_S), ScriptedEngine(answer(LIST), tls=context) as remote:
        trusted = trusting_context()
        assert await ask(f"https://localhost:{remote.port}", "k", trusted) == ("m",)
        for host, trusts in (("127.0.0.1", trusted), ("localhost", None)):
            with pytest.raises(PeerListError, match="certificate"):
                await ask(f"https://{host}:{remote.port}", "k", trusts)
        assert len(remote.requests) == 1
