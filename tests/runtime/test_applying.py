from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.core.settings import CoreSettings, GroupRule
from llama_router.runtime.applying import core_settings, unknown_names
from llama_router.runtime.roster import build_roster

FOUND = [CatalogModel(id=name, path=None, source=ModelSource.MODELS_DIR) for name in ("fox", "owl")]


def settings_of(budgets: dict[str, int] | None = None, **content: object) -> CoreSettings:
    config = Config.model_validate(content)
    return core_settings(config, build_roster(config, FOUND), budgets)


def test_the_core_is_told_the_limits_and_how_groups_get_along() -> None:
    settings = settings_of(
        {"cpu": 7}, router={"max_loaded": 3}, groups={"g": {"swap": True, "exclusive": False}}
    )
    assert (settings.max_loaded, settings.budgets[0].size_bytes) == (3, 7)
    assert settings.groups == (GroupRule("group g", swap=True, exclusive=False),)
    assert settings_of(router={"max_loaded": 3}).budgets == ()


def test_a_matrix_says_which_models_run_together_and_what_it_costs_to_unload_them() -> None:
    matrix = {
        "vars": {"f": "fox"},
        "sets": {"both": "f & owl & gone"},
        "evict_costs": {"f": 5, "owl": 2},
    }
    settings = settings_of(matrix=matrix)
    assert settings.combinations == (frozenset({"fox", "owl"}),)
    assert settings.eviction_costs == {"fox": 5.0, "owl": 2.0}


def test_a_matrix_may_call_models_by_any_of_their_names() -> None:
    matrix = {
        "vars": {"r": "red"},
        "sets": {"both": "r & owl", "again": "fox & owl"},
        "evict_costs": {"r": 5, "gone": 2},
    }
    models = [{"name": "fox", "aliases": ["red"]}, {"name": "owl"}]
    settings = settings_of(models=models, matrix=matrix)
    assert settings.combinations == (frozenset({"fox", "owl"}),)
    assert settings.eviction_costs == {"fox": 5.0, "gone": 2.0}


def unknown(**content: object) -> tuple[str, ...]:
    config = Config.model_validate(content)
    return unknown_names(config, build_roster(config, FOUND))


def test_names_that_lead_to_no_model_are_found() -> None:
    router = {"preload": ["fox", "foxx", "p/cloud", "cloud"]}
    peers = {"p": {"url": "https://peer.example", "models": ["cloud"]}}
    told = ("router.preload[1]: there is no model foxx; did you mean fox?",)
    assert unknown(router=router, peers=peers) == told
    peers["more"] = {"url": "https://peer.example"}
    assert unknown(router=router, peers=peers) == ()
    assert len(unknown(router={"preload": [f"x{n}" for n in range(99)]})) == 20
