from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.proxy.errors import BadRequestError, ModelNotFoundError
from llama_router.proxy.gate import Door, Target, Timeouts
from llama_router.proxy.rewrite import Rewrite
from llama_router.runtime.names import Listed, Names
from llama_router.runtime.roster import build_roster
from llama_router.runtime.selectors import Standing


class Elsewhere:
    """One peer with one model."""

    def target(self, name: str) -> Target | None:
        if name not in ("big", "box/big"):
            return None
        rewrite = None if name == "big" else Rewrite("box's big")
        return Target("box/big", rewrite=rewrite, door=cast("Door", self))

    def listed(self) -> Iterator[tuple[str, str]]:
        yield "big", "box"
        yield "box/big", "box"

    def standing(self, model: str) -> Standing | None:
        return Standing(is_loaded=True) if model == "box/big" else None


def names_of(*models: dict[str, Any], **rest: Any) -> Names:  # noqa: ANN401 - plain data
    config = Config.model_validate({"models": models, **rest})
    found = [
        CatalogModel(id="fox", path=None, source=ModelSource.MODELS_DIR, names=("fox.gguf",)),
        CatalogModel(id="ill", path=None, source=ModelSource.MODELS_DIR, invalid="cut off"),
    ]
    loaded = {"owl": Standing(is_loaded=True)}
    return Names(
        build_roster(config, found),
        config,
        look=lambda model: loaded.get(model, Standing()),
        peers=Elsewhere(),
    )


def test_names_lead_to_models_and_are_remembered() -> None:
    names = names_of({"name": "owl", "aliases": ["bird"]})
    assert names.resolve("owl") == Target("owl", is_open=True)
    assert names.resolve("fox.gguf") == Target("fox", is_open=True)
    assert names.resolve("bird") == Target("owl", name="bird", is_open=True)
    assert names.resolve("bird") is names.resolve("bird")


def test_what_leads_nowhere_says_why() -> None:
    names = names_of({"name": "owl", "aliases": ["fox.gguf"]})
    with pytest.raises(ModelNotFoundError, match="'nobody' is not known"):
        names.resolve("nobody")
    with pytest.raises(ModelNotFoundError, match="cut off"):
        names.resolve("ill")
    with pytest.raises(BadRequestError, match="fox, owl"):
        names.resolve("fox.gguf")
    assert names.find("ill").invalid == "cut off"


def test_filters_go_by_the_name_that_was_asked_for() -> None:
    filters = {
        "strip_params": ["seed"],
        "set_params": {"top_k": 1, "stop": ["a"]},
        "set_params_by_id": {"owl-hot": {"temperature": 2, "top_k": 9}},
    }
    names = names_of({"name": "owl", "filters": filters, "use_model_name": "served"})
    plain, hot = names.resolve("owl").rewrite, names.resolve("owl-hot").rewrite
    assert plain is not None
    assert hot is not None
    assert (plain.model, plain.strip) == ("served", ("seed",))
    assert dict(plain.set) == {"top_k": b"1", "stop": b'["a"]'}
    assert dict(hot.set) == {"top_k": b"9", "stop": b'["a"]', "temperature": b"2"}
    assert names.resolve("owl-hot").name == "owl-hot"


def test_a_models_own_patience_and_notices_go_with_its_requests() -> None:
    patient = {"read_timeout_s": 5.0, "notify_model_swap": True}
    names = names_of({"name": "owl", **patient}, {"name": "cat"})
    assert names.resolve("owl").timeouts == Timeouts(5.0, None)
    assert names.resolve("owl").notify is True
    assert names.resolve("cat") == Target("cat", is_open=True)


def test_a_selector_chooses_anew_for_each_request_and_tells_the_engine_whom_it_chose() -> None:
    selectors = {"any": {"strategy": "warm", "targets": ["fox", "owl"]}}
    names = names_of({"name": "owl"}, selectors=selectors)
    target = names.resolve("any")
    assert (target.model, target.name) == ("owl", "any")
    assert target.rewrite is not None
    assert target.rewrite.model == "owl"
    assert names.resolve("any") is not target


def test_a_selector_may_choose_a_peers_model_but_not_one_that_there_is_not() -> None:
    selectors = {
        "far": {"strategy": "warm", "targets": ["fox", "big"]},
        "bad": {"strategy": "warm", "targets": ["gone", "ill"]},
    }
    names = names_of(selectors=selectors)
    assert names.resolve("far").model == "box/big"
    with pytest.raises(ModelNotFoundError, match="gone"):
        names.resolve("bad")


def test_a_profile_pins_names_to_models_and_selectors_until_another_one_is_active() -> None:
    profiles = {"work": {"pins": {"chat": "any", "fox": "owl", "play": ""}}}
    selectors = {"any": {"strategy": "pin", "targets": ["owl"]}}
    names = names_of({"name": "owl"}, profiles=profiles, selectors=selectors)
    assert names.resolve("fox").model == "fox"
    names.activate("work")
    assert names.resolve("chat").model == "owl"
    assert names.resolve("fox").model == "owl"
    with pytest.raises(ModelNotFoundError, match="switched off by the profile 'work'"):
        names.resolve("play")
    with pytest.raises(KeyError):
        names.activate("nothing")
    names.activate("")
    assert names.resolve("fox").model == "fox"


def test_names_of_ours_come_before_those_of_peers() -> None:
    names = names_of({"name": "owl", "aliases": ["big"]})
    assert names.resolve("big").model == "owl"
    assert names.resolve("box/big").model == "box/big"
    assert names.resolve("box/big").door is not None


def test_the_longest_name_at_the_beginning_of_a_path_counts() -> None:
    names = names_of({"name": "owl/big", "aliases": ["owl"], "use_model_name": "x"})
    target = names.resolve_prefix("owl/big/props")
    assert target is not None
    assert (target.model, target.rest) == ("owl/big", "/props")
    target = names.resolve_prefix("owl/v1")
    assert target is not None
    assert (target.model, target.rest, target.name) == ("owl/big", "/v1", "owl")
    assert names.resolve_prefix("nobody/props") is None


def test_what_a_profile_pins_holds_at_the_beginning_of_a_path_too() -> None:
    pins = {"owl": "", "chat": "cat", "cat/own": "any", "fox": "big", "twice": ""}
    names = names_of(
        {"name": "owl", "aliases": ["bird", "twice"]},
        {"name": "owl/two"},
        {"name": "cat", "aliases": ["twice"]},
        profiles={"work": {"pins": pins}},
        selectors={"any": {"strategy": "pin", "targets": ["owl/two"]}},
    )
    assert names.resolve_prefix("chat/props") is None
    with pytest.raises(BadRequestError, match="any of"):
        names.resolve_prefix("twice/props")
    names.activate("work")
    for off in ("owl", "owl/props", "twice/props", "owl/v1/chat/completions"):
        with pytest.raises(ModelNotFoundError, match="switched off by the profile 'work'"):
            names.resolve_prefix(off)
    for path, model, rest in (
        # Names are switched off, not models; and a longer name is another one.
        ("bird/props", "owl", "/props"),
        ("owl/two/props", "owl/two", "/props"),
        ("owlet", None, None),
        ("chat/v1/x", "cat", "/v1/x"),
        ("cat/slots", "cat", "/slots"),
        ("cat/own/slots", "owl/two", "/slots"),
        ("cat/own", "owl/two", ""),
        ("fox/health", "box/big", "/health"),
    ):
        target = names.resolve_prefix(path)
        assert (target and target.model, target and target.rest) == (model, rest), path
    names.activate("")
    assert names.resolve_prefix("owl/props") is not None


def test_lists_leave_out_what_is_switched_off() -> None:
    pins = {"any": "", "bird": "", "big": "", "box/big": "", "cat": ""}
    names = names_of(
        {"name": "owl", "aliases": ["bird"]},
        {"name": "cat", "aliases": ["pet"]},
        selectors={"any": {"strategy": "pin", "targets": ["owl"]}},
        profiles={"work": {"pins": pins}},
        router={"include_aliases_in_list": True},
    )
    assert [one.name for one in names.listing()] == ["pet", "bird", "any", "big", "box/big"]
    names.activate("work")
    assert [one.name for one in names.listing()] == ["pet"]
    assert names.is_off("cat")
    assert not names.is_off("pet")


def test_lists_show_selectors_peers_and_if_wanted_aliases() -> None:
    selectors = {
        "any": {"strategy": "pin", "targets": ["owl"], "title": "Any"},
        "secret": {"strategy": "pin", "targets": ["owl"], "unlisted": True},
    }
    models = (
        {"name": "owl", "aliases": ["bird"]},
        {"name": "cat", "aliases": ["pet"], "unlisted": True},
    )
    listed = list(names_of(*models, selectors=selectors).listing())
    assert [(one.name, one.kind) for one in listed] == [
        ("any", "selector"),
        ("big", "peer"),
        ("box/big", "peer"),
    ]
    router = {"include_aliases_in_list": True}
    first, *_others = names_of(*models, selectors=selectors, router=router).listing()
    assert first == Listed(name="bird", kind="alias", model="owl")
    assert msgspec.json.encode(first)


def test_a_name_with_parameters_of_its_own_is_listed_as_the_alias_that_it_is() -> None:
    by_id = {"owl": {}, "bird": {}, "owl:high": {"effort": "high"}}
    names = names_of(
        {"name": "owl", "aliases": ["bird"], "filters": {"set_params_by_id": by_id}},
        router={"include_aliases_in_list": True},
    )
    assert [one.name for one in names.listing() if one.kind == "alias"] == ["bird", "owl:high"]


def test_a_peers_model_that_has_a_name_of_ours_is_listed_by_its_other_name() -> None:
    for ours in ({"name": "big"}, {"name": "owl", "aliases": ["big"]}):
        names = names_of(ours)
        assert [one.name for one in names.listing()] == ["box/big"]
        assert names.resolve("box/big").door is not None
    selectors = {"big": {"strategy": "pin", "targets": ["owl"]}}
    listed = names_of({"name": "owl"}, selectors=selectors).listing()
    assert [(one.name, one.kind) for one in listed] == [("big", "selector"), ("box/big", "peer")]
    assert list(names_of({"name": "big"}, {"name": "box/big"}).listing()) == []


def test_paths_are_looked_at_only_where_some_are_closed() -> None:
    limited = names_of({"name": "owl", "spawn": {"proxy_endpoints": ["/v1/"]}})
    assert not limited.resolve("owl").is_open
    assert limited.resolve("fox").is_open
    prefixed = limited.resolve_prefix("owl/slots")
    assert prefixed is not None
    assert not prefixed.is_open


def test_a_peer_is_told_the_name_that_was_chosen_not_the_one_that_was_asked_for() -> None:
    selectors = {
        "one": {"strategy": "pin", "targets": ["big"]},
        "two": {"strategy": "pin", "targets": ["box/big"]},
    }
    profiles = {"away": {"pins": {"owl": "big"}}}
    names = names_of({"name": "owl"}, selectors=selectors, profiles=profiles)
    names.activate("away")
    for asked, said in (("one", "big"), ("two", "box's big"), ("owl", "big")):
        target = names.resolve(asked)
        assert target.door is not None
        assert target.rewrite is not None
        assert (target.name, target.rewrite.model) == (asked, said)
    assert names.resolve("big").rewrite is None
