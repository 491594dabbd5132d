import asyncio

import msgspec
import pytest

from llama_router.hub.addresses import Addresses
from llama_router.hub.errors import HubError, PassingError
from llama_router.hub.patience import Patience
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub


@pytest.mark.asyncio
async def test_trouble_of_the_api_is_waited_out(hub: FakeHub, session: HubSession) -> None:
    hub.faults.api_statuses = [503, 429, 500]
    found, following = await session.get_json(
        f"{hub.url}/api/models/org/tiny", dict[str, object], what="org/tiny"
    )
    assert (found["id"], following) == ("org/tiny", "")
    assert hub.counts["repo"] == 4


@pytest.mark.asyncio
async def test_trouble_that_stays_is_said(hub: FakeHub, session: HubSession) -> None:
    hub.faults.api_statuses = [503] * 100
    with pytest.raises(HubError, match="503") as raised:
        await session.get_json(f"{hub.url}/api/models/org/tiny", dict[str, object], what="x")
    assert raised.value.code == "unreachable"
    assert hub.counts["repo"] == 5


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b'{"a":', b"\xff\xfe", b'"text"'])
async def test_what_is_no_answer_of_a_hub(hub: FakeHub, session: HubSession, body: bytes) -> None:
    hub.faults.api_body = body
    with pytest.raises(HubError) as raised:
        await session.get_json(f"{hub.url}/api/models/org/tiny", dict[str, object], what="x")
    assert raised.value.code == "bad_answer"


@pytest.mark.asyncio
async def test_the_token_opens_what_is_private(hub: FakeHub, quick: Patience) -> None:
    hub.token = "hf_right"
    hub.repos["org/tiny"].private = True
    url = f"{hub.url}/api/models/org/tiny"
    async with HubSession(Addresses(hub.url), "hf_right", quick) as session:
        await session.get_json(url, dict[str, object], what="org/tiny")
    for token, hint in (("", "set HF_TOKEN"), ("hf_wrong", "does not open it")):
        async with HubSession(Addresses(hub.url), token, quick) as session:
            with pytest.raises(HubError, match=hint) as raised:
                await session.get_json(url, dict[str, object], what="org/tiny")
        assert raised.value.code == "unauthorized"
        assert "hf_" not in raised.value.message


@pytest.mark.asyncio
async def test_nobody_there_is_a_passing_error(quick: Patience) -> None:
    async with HubSession(Addresses("http://127.0.0.1:9"), "", quick) as session:
        with pytest.raises(PassingError, match="cannot be reached"):
            async with session.get("http://127.0.0.1:9/x", what="x"):
                pass


@pytest.mark.asyncio
async def test_a_question_is_not_asked_again_later_than_anybody_waits(
    hub: FakeHub, quick: Patience
) -> None:
    hub.faults.api_statuses = [429]
    hub.faults.retry_after = "300"
    patience = msgspec.structs.replace(quick, retry_after_max_s=600.0)
    async with asyncio.timeout(10), HubSession(Addresses(hub.url), "", patience) as session:
        with pytest.raises(HubError, match="429") as raised:
            await session.get_json(f"{hub.url}/api/models/org/tiny", dict[str, object], what="x")
    assert raised.value.code == "rate_limited"
    assert hub.counts["repo"] == 1
