import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.listing import beginning, contents, file_url, search
from llama_router.hub.session import HubSession
from tests.support.fake_hub import COMMIT, FakeHub, Repo, content


@pytest.mark.asyncio
async def test_search(hub: FakeHub, session: HubSession) -> None:
    hub.repos["bad--name/x"] = hub.repos["org/tiny"]
    hits = await search(session, "", 10)
    assert [hit.repo for hit in hits] == ["org/tiny"]
    assert (hits[0].architecture, hits[0].parameter_count) == ("llama", 8_000_000_000)
    assert (hits[0].context_length, hits[0].downloads, hits[0].gated) == (32768, 1000, False)
    assert await search(session, "nothing", 10) == []


@pytest.mark.asyncio
async def test_what_the_hub_says_oddly_is_left_out(hub: FakeHub, session: HubSession) -> None:
    hub.faults.api_body = b'[{"id":"a/b","downloads":"many","likes":-1,"gguf":{"total":null}}]'
    hits = await search(session, "x", 10)
    assert (hits[0].downloads, hits[0].likes, hits[0].parameter_count) == (0, 0, 0)


@pytest.mark.asyncio
async def test_all_pages_of_a_tree_are_read(hub: FakeHub, session: HubSession) -> None:
    hub.faults.page_size = 3
    hub.repos["org/many"] = Repo({f"m{n}-Q8_0.gguf": content(10, n) for n in range(10)})
    found, files = await contents(session, "org/many")
    assert len(files) == len(found.variants) == 10
    assert hub.counts["tree"] == 4
    assert found.commit == COMMIT


@pytest.mark.asyncio
async def test_a_list_that_does_not_end_is_given_up(hub: FakeHub, session: HubSession) -> None:
    hub.faults.page_size = 0
    with pytest.raises(HubError, match="does not end"):
        await contents(session, "org/tiny")


@pytest.mark.asyncio
async def test_hostile_names_are_not_listed(hub: FakeHub, session: HubSession) -> None:
    names = ["../../evil.gguf", "/abs.gguf", "con.gguf", "a\\b.gguf", "good-Q8_0.gguf"]
    hub.repos["org/evil"] = Repo({name: content(10) for name in names})
    found, files = await contents(session, "org/evil")
    assert list(files) == ["good-Q8_0.gguf"]
    assert [variant.id for variant in found.variants] == ["org/evil:Q8_0"]


@pytest.mark.asyncio
async def test_a_commit_must_be_one(hub: FakeHub, session: HubSession) -> None:
    hub.repos["org/tiny"].commit = "../../etc"
    with pytest.raises(HubError) as raised:
        await contents(session, "org/tiny")
    assert raised.value.code == "bad_answer"


@pytest.mark.asyncio
async def test_the_beginning_of_a_file(hub: FakeHub, session: HubSession) -> None:
    url = file_url(session, "org/tiny", COMMIT, "tiny-Q8_0.gguf")
    data = hub.repos["org/tiny"].files["tiny-Q8_0.gguf"]
    assert await beginning(session, url, 1000, what="x") == data[:1000]
    hub.faults.ignore_range = 1
    assert await beginning(session, url, 1000, what="x") == data[:1000]
