import asyncio
from pathlib import Path
from typing import get_args

import pytest

from llama_router.control.facade import ControlError
from llama_router.hub.errors import Code, HubError
from llama_router.runtime.bridge_downloads import DownloadsBridge, control_error
from llama_router.runtime.downloads import Downloads
from tests.runtime.test_downloads import Watch, downloads_of
from tests.support.fake_hub import FakeHub, Repo, content


def test_every_reason_has_a_status() -> None:
    statuses = {code: control_error(HubError(code, "why")).status for code in get_args(Code)}
    assert statuses["offline"] == 409
    assert statuses["gated"] == statuses["unauthorized"] == 403
    assert statuses["unreachable"] == statuses["bad_answer"] == 424
    assert {400, 403, 404, 409, 424, 500} == set(statuses.values())


async def refusal(bridge: DownloadsBridge, downloads: Downloads) -> list[tuple[int, str]]:
    bridge.downloads_here = downloads
    said = []
    for question in (
        bridge.download("9"),
        bridge.pause_download("9"),
        bridge.begin_download("nonsense", ""),
        bridge.hub_files("org/none"),
    ):
        with pytest.raises(ControlError) as raised:
            await question
        said.append((raised.value.status, raised.value.code))
    return said


@pytest.mark.asyncio
async def test_it_answers_on_another_loop_and_says_no_in_the_api_s_words(tmp_path: Path) -> None:
    watch = Watch()
    hub_repos = {"org/tiny": Repo({"m-Q8_0.gguf": content(100_000)})}
    async with (
        asyncio.timeout(30),
        FakeHub(hub_repos) as hub,
        downloads_of(hub, tmp_path, watch) as downloads,
    ):
        bridge = DownloadsBridge(lambda: tmp_path / "cache")
        said = await asyncio.to_thread(asyncio.run, refusal(bridge, downloads))
        assert said == [
            (404, "not_found"),
            (404, "not_found"),
            (400, "invalid_request"),
            (403, "hub_refused"),
        ]
        found = await asyncio.to_thread(asyncio.run, bridge.hub_files("org/tiny"))
        assert (found.variants[0].fits, found.variants[0].is_default) == ("unknown", True)
