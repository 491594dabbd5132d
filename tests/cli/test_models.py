import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from llama_router.catalog.resolve import UnknownModelError
from llama_router.cli.main import app
from llama_router.proxy.errors import LOG_HINT
from tests.support.canned_router import Asked, CannedRouter, canned_router

GIB = 2**30
MODELS = [
    {
        "id": "qwen:Q4_K_M",
        "state": "loaded",
        "size_bytes": 4.4 * GIB,
        "metadata": {"quantisation": "Q4_K_M", "context_length": 32768},
        "error": "",
    },
    {"id": "torn\x1b[2J", "state": "invalid", "size_bytes": 0, "metadata": None, "error": "short"},
]
RESIDENT = {
    "id": "qwen",
    "state": "loading",
    "progress": 0.431,
    "memory": {"cuda0": 3 * GIB, "cpu": 512 * 2**20, "cuda1": 0},
    "in_flight": 2,
    "waiting": 1,
    "pinned": False,
    "expires_at_s": None,
}


@pytest.fixture
def router() -> Iterator[CannedRouter]:
    with canned_router() as server:
        yield server


def run(router: CannedRouter, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--url", router.url])
    return result.exit_code, result.output


def test_models_are_listed_with_what_they_are_and_no_terminal_codes(router: CannedRouter) -> None:
    router.answers["GET", "/admin/models"] = 200, {"models": MODELS, "others": [], "total": 2}
    status, output = run(router, "models", "q w")
    assert status == 0
    assert output.splitlines() == [
        "MODEL           SIZE  QUANT   CONTEXT  STATE",
        "qwen:Q4_K_M  4.4 GiB  Q4_K_M    32768  loaded",
        "torn\\x1b[2J        -  -             -  invalid: short",
    ]
    assert router.asked[0].path == "/admin/models?search=q+w&limit=500&offset=0"


def test_selectors_and_models_of_peers_stand_behind_the_models(router: CannedRouter) -> None:
    others = [
        {"id": "any", "kind": "selector", "title": "", "description": "what\x1b is warm"},
        {"id": "plain", "kind": "selector", "title": "", "description": ""},
        {"id": "far/m", "kind": "peer", "title": "", "description": "of far"},
    ]
    router.answers["GET", "/admin/models"] = 200, {"models": [], "others": others, "total": 0}
    assert run(router, "models")[1].splitlines() == [
        "MODEL  SIZE  QUANT  CONTEXT  STATE",
        "any       -  -            -  selector: what\\x1b is warm",
        "plain     -  -            -  selector",
        "far/m     -  -            -  peer of far",
    ]
    answer = {"models": MODELS, "others": others, "total": 4}
    router.answers["GET", "/admin/models"] = 200, answer
    assert len(json.loads(run(router, "models", "--json")[1])["others"]) == 3


def test_models_of_many_answers_are_put_together(router: CannedRouter) -> None:
    router.answers["GET", "/admin/models"] = 200, {"models": MODELS, "others": [], "total": 4}
    status, output = run(router, "models", "--json")
    assert (status, len(json.loads(output)["models"])) == (0, 4)
    assert [asked.path.rpartition("=")[2] for asked in router.asked] == ["0", "2"]


def test_a_router_without_models_says_where_to_look(router: CannedRouter) -> None:
    router.answers["GET", "/admin/models"] = 200, {"models": [], "others": [], "total": 0}
    assert run(router, "models") == (0, "no models; see `llama-router doctor`\n")


def test_ps_shows_what_is_resident_and_for_how_long(router: CannedRouter) -> None:
    pinned = RESIDENT | {"id": "p", "state": "loaded", "progress": None, "pinned": True}
    staying = pinned | {"id": "s", "pinned": False, "memory": {}}
    router.answers["GET", "/admin/status"] = 200, {"models": [RESIDENT, pinned, staying]}
    status, output = run(router, "ps")
    assert status == 0
    assert output.splitlines() == [
        "MODEL  STATE        MEMORY                         ACTIVE  WAITING  UNTIL",
        "qwen   loading 43%  3.0 GiB cuda0 + 512.0 MiB cpu       2        1  -",
        "p      loaded       3.0 GiB cuda0 + 512.0 MiB cpu       2        1  pinned",
        "s      loaded       -                                   2        1  room is needed",
    ]


def test_an_idle_router_has_nothing_to_show(router: CannedRouter) -> None:
    router.answers["GET", "/admin/status"] = 200, {"models": []}
    assert run(router, "ps") == (0, "no model is loaded\n")


@pytest.mark.parametrize("order", ["load", "unload"])
def test_orders_are_passed_on_and_their_end_is_told(router: CannedRouter, order: str) -> None:
    state = order + "ed"
    router.answers["POST", f"/admin/{order}"] = 200, {"model": "qwen:Q4_K_M", "state": state}
    assert run(router, order, "qwen", "--token", "t") == (0, f"qwen:Q4_K_M is {state}\n")
    assert router.asked == [Asked("POST", f"/admin/{order}", {"model": "qwen"}, "Bearer t")]


def test_an_unknown_model_is_wrong_usage_and_a_failed_load_is_not(router: CannedRouter) -> None:
    assert run(router, "load", "none")[0] == 2
    failure = {"error": {"message": "it crashed\x1b[0m"}}
    router.answers["POST", "/admin/load"] = 503, failure
    assert run(router, "load", "m") == (1, "llama-router: it crashed\\x1b[0m\n")


def test_what_the_api_refers_to_is_told_as_a_command(router: CannedRouter) -> None:
    unknown = {"error": {"message": str(UnknownModelError("non")), "code": "model_not_found"}}
    router.answers["POST", "/admin/load"] = 404, unknown
    assert run(router, "load", "non") == (
        2,
        "llama-router: model 'non' is not known; `llama-router models` lists those that are\n",
    )
    failed = {"error": {"message": f"it crashed{LOG_HINT}", "code": "model_load_failed"}}
    router.answers["POST", "/admin/load"] = 503, failed
    assert "its log, `llama-router logs MODEL`, says more" in run(router, "load", "m")[1]


def test_the_router_may_be_named_by_the_environment(
    router: CannedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.answers["GET", "/admin/models"] = 200, {"models": [], "others": [], "total": 0}
    monkeypatch.setenv("LLAMA_ROUTER_URL", router.url)
    assert CliRunner().invoke(app, ["models"]).output == "no models; see `llama-router doctor`\n"


def test_without_a_router_the_way_to_one_is_told() -> None:
    with canned_router() as server:
        url = server.url
    result = CliRunner().invoke(app, ["ps", "--url", url])
    assert result.exit_code == 1
    assert "start one with `llama-router`" in result.output
