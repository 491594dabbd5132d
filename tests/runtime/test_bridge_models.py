import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from llama_router.catalog.model import CatalogModel, Metadata, ModelSource
from llama_router.config.schema import Config
from llama_router.control.facade import ControlError
from llama_router.core.machine import Core
from llama_router.engines.logs import LogStore
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.bridge import Bridge
from llama_router.runtime.bridge_models import describe, may_use
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.roster import build_roster
from tests.runtime.test_bridge import Connections, elsewhere
from tests.runtime.test_desk import Room

pytestmark = pytest.mark.asyncio

CONFIG: dict[str, Any] = {
    "models": [
        {"name": "qwen", "aliases": ["gpt-4"], "title": "Qwen", "metadata": {"a": 1}},
        {"name": "hidden", "unlisted": True},
        {"name": "llama", "aliases": ["gpt-3"], "description": "old"},
    ],
    "selectors": {"any": {"strategy": "warm", "targets": ["qwen", "llama"], "title": "Any"}},
}


def bridge_over(config: dict[str, Any], **keys: tuple[str, ...]) -> Bridge:
    desk = Desk()
    whole = Config.model_validate(config)
    found = CatalogModel(
        id="found",
        path=None,
        source=ModelSource.MODELS_DIR,
        metadata=Metadata(architecture="llama", parameter_count=5, quantisation="Q4_K_M"),
    )
    roster = build_roster(whole, [found])
    desk.open(Core(roster.specs()), roster, cast("EngineRoom", Room()))
    plane = Connections()
    bridge = Bridge(desk, LogStore(), cast("Services", plane), cast("ProxyServer", plane))
    bridge.patterns_of = lambda key: keys.get(key, ())
    return bridge


async def listed(bridge: Bridge, key: str = "") -> list[str]:
    return [one.id for one in await elsewhere(bridge.listing(key))]


async def test_files_with_names_that_are_no_text_do_not_spoil_the_list() -> None:
    path = Path(os.fsdecode(b"/m/caf\xe9.gguf"))
    found = CatalogModel(id="caf", path=path, source=ModelSource.MODELS_DIR, mmproj=path)
    roster = build_roster(Config(), [found])
    desk = Desk()
    desk.open(Core(roster.specs()), roster, cast("EngineRoom", Room()))

    info = describe(desk, roster["caf"], 0.0)

    assert b"/m/caf" in msgspec.json.encode(info)
    assert info.path == info.mmproj == "/m/caf\N{REPLACEMENT CHARACTER}.gguf"


async def test_the_list_has_models_and_selectors_and_leaves_out_what_is_unlisted() -> None:
    bridge = bridge_over(CONFIG)
    assert await listed(bridge) == ["found", "llama", "qwen", "any"]
    everything = [info.id for info in await elsewhere(bridge.models())]
    assert everything == ["found", "hidden", "llama", "qwen"]
    assert (await elsewhere(bridge.listed("hidden", ""))).id == "hidden"
    assert [(one.id, one.kind) for one in await elsewhere(bridge.others())] == [("any", "selector")]
    by_name = {one.id: one for one in await elsewhere(bridge.listing(""))}
    assert (by_name["qwen"].title, by_name["qwen"].metadata) == ("Qwen", {"a": 1})
    assert (by_name["any"].kind, by_name["any"].info) == ("selector", None)


async def test_aliases_are_listed_if_the_config_says_so() -> None:
    bridge = bridge_over({**CONFIG, "router": {"include_aliases_in_list": True}})
    assert await listed(bridge) == ["found", "llama", "qwen", "gpt-3", "gpt-4", "any"]
    # An alias is its model to whoever asks for that one.
    assert (await elsewhere(bridge.listed("gpt-4", ""))).id == "qwen"


async def test_a_key_sees_what_it_may_use_and_nothing_else() -> None:
    bridge = bridge_over(CONFIG, ann=("qw*",), bob=("gpt-3", "any"), all=())
    assert await listed(bridge, "ann") == ["qwen"]
    assert await listed(bridge, "bob") == ["any", "gpt-3"]
    assert await listed(bridge, "all") == await listed(bridge)
    assert (await elsewhere(bridge.listed("gpt-3", "bob"))).id == "llama"
    for name in ("qwen", "hidden", "nobody"):
        with pytest.raises(ControlError) as raised:
            await elsewhere(bridge.listed(name, "bob"))
        assert (raised.value.status, raised.value.code) == (404, "model_not_found")


async def test_a_key_for_a_name_with_parameters_of_its_own_sees_that() -> None:
    filters = {"set_params_by_id": {"owl": {}, "owl:high": {"effort": "high"}}}
    models = [{"name": "owl", "filters": filters, "title": "Owl"}]
    bridge = bridge_over({**CONFIG, "models": models, "selectors": {}}, bob=("owl:*",))
    assert await listed(bridge, "bob") == ["owl:high"]


async def test_a_key_for_some_models_gets_their_logs_only() -> None:
    bridge = bridge_over(CONFIG, ann=("qw*",), bob=("gpt-3",), all=())
    for key in ("", "all"):
        assert await elsewhere(bridge.whose_log(None, key)) is None
        assert await elsewhere(bridge.whose_log("gpt-3", key)) == "llama"
    assert await elsewhere(bridge.whose_log("gpt-4", "ann")) == "qwen"
    assert await elsewhere(bridge.whose_log("gpt-3", "bob")) == "llama"
    for name, key, status in ((None, "ann", 403), ("llama", "ann", 404), ("llama", "bob", 404)):
        with pytest.raises(ControlError) as raised:
            await elsewhere(bridge.whose_log(name, key))
        assert raised.value.status == status


async def test_a_model_is_described_with_what_its_file_says() -> None:
    bridge = bridge_over(CONFIG)
    info = await elsewhere(bridge.model("found"))
    assert info.metadata == {
        "architecture": "llama",
        "parameter_count": 5,
        "quantisation": "Q4_K_M",
    }
    assert (info.title, info.is_unlisted) == ("", False)
    assert (await elsewhere(bridge.model("hidden"))).is_unlisted


async def test_patterns_are_those_of_shells_and_know_their_case() -> None:
    assert may_use(("qwen*", "x"), "Qwen", "x")
    assert not may_use(("qwen*",), "Qwen", "")
    assert may_use((), "anything")
