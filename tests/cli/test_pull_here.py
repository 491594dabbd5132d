from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_router.cli.pull_here import have_model, serve_none_first, serve_this_first
from llama_router.config.hub_settings import HubSettings
from llama_router.config.load import load
from llama_router.config.schema import Config
from llama_router.hub.errors import HubError
from tests.support.fake_hub import FakeHub, Repo, content
from tests.support.in_thread import running_hub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    files = {"m-Q8_0.gguf": content(40_000), "m-Q4_0.gguf": content(30_000, 2)}
    with running_hub(FakeHub({"org/m": Repo(files)})) as made:
        yield made


def test_a_model_is_downloaded_once_and_then_taken_without_asking(
    hub: FakeHub, tmp_path: Path
) -> None:
    env = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    config = Config(hub=HubSettings(endpoint=hub.url))
    pulled = have_model("org/m", "", config, env)
    assert pulled.model == "org/m:Q8_0"
    asked = len(hub.requests), sum(hub.counts.values())
    assert have_model("org/m:Q8_0", "", config, env) == pulled
    assert (len(hub.requests), sum(hub.counts.values())) == asked
    assert have_model("org/m", "m-Q4_0.gguf", config, env).model == "org/m:Q4_0"
    offline = {**env, "HF_HUB_OFFLINE": "1"}
    assert have_model("org/m", "", config, offline) == pulled
    with pytest.raises(HubError) as raised:
        have_model("org/other", "", config, offline)
    assert raised.value.code == "offline"


def test_the_first_model_becomes_the_startup_model_and_later_ones_leave_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('# mine\nversion: "1.0"\nrouter:\n  port: 9000  # here\n')
    assert serve_this_first(path, "org/m:Q8_0")
    assert load(path).config.startup_model == "org/m:Q8_0"
    assert "# mine" in path.read_text()
    assert "# here" in path.read_text()
    assert not serve_this_first(path, "org/m:Q4_0")
    assert load(path).config.startup_model == "org/m:Q8_0"
    serve_none_first(path)
    assert load(path).config.startup_model == ""
    assert "# mine" in path.read_text()
    assert "# here" in path.read_text()
