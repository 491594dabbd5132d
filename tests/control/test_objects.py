import json

import msgspec
import pytest

from llama_router.control.facade import ListedModel
from llama_router.control.objects import listed_object, model_object, status_object
from tests.support.control_facade import ALPHA


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, {"value": "unloaded"}),
        ({"state": "loading", "fraction": 0.4312}, {"value": "loading", "progress": 0.431}),
        ({"state": "loaded"}, {"value": "loaded"}),
        ({"state": "unloading"}, {"value": "loaded", "state": "unloading"}),
        (
            {"state": "failed", "error": "crashed"},
            {"value": "unloaded", "state": "failed", "failed": True, "error": "crashed"},
        ),
        ({"state": "backing_off"}, {"value": "unloaded", "state": "backing_off", "failed": True}),
        ({"state": "stuck"}, {"value": "unloaded", "state": "stuck", "failed": True}),
        (
            {"state": "invalid", "error": "gone"},
            {"value": "unloaded", "state": "invalid", "error": "gone"},
        ),
    ],
)
def test_a_models_state_is_said_in_llama_servers_words_and_ours(
    changes: dict[str, object], status: dict[str, object]
) -> None:
    assert model_object(msgspec.structs.replace(ALPHA, **changes))["status"] == status


def test_a_projector_makes_a_model_see() -> None:
    seeing = model_object(msgspec.structs.replace(ALPHA, mmproj="/models/mmproj.gguf"))
    assert seeing["architecture"] == {
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
    }
    assert model_object(ALPHA)["created"] == 1700000000
    # Where a file lies is nobody's business.
    assert "/models" not in json.dumps(seeing)


def test_what_keeps_a_model_or_costs_it_its_place_is_shown_in_both_lists() -> None:
    info = msgspec.structs.replace(
        ALPHA,
        state="loaded",
        in_flight=1,
        memory={"cuda0": 5},
        is_booked=True,
        is_measured=True,
        load_cost_s=1.23456,
        ttl_s=300.0,
        expires_at_s=1700000000.5,
        last_eviction="in place of beta",
    )
    expected = {
        "in_flight": 1,
        "waiting": 0,
        "pinned": False,
        "memory": {"cuda0": 5},
        "is_booked": True,
        "is_measured": True,
        "load_cost_s": 1.235,
        "ttl_s": 300.0,
        "expires_at_s": 1700000000.5,
        "last_eviction": "in place of beta",
    }
    assert model_object(info)["residency"] == expected
    assert status_object(info) == {"id": ALPHA.id, "state": "loaded", "group": "", **expected}


def test_the_status_tells_what_is_wrong_with_a_model() -> None:
    info = msgspec.structs.replace(
        ALPHA, state="backing_off", error="crashed", retry_in_s=1.23456, fraction=0.12345
    )
    shown = status_object(info)
    assert (shown["error"], shown["retry_in_s"], shown["progress"]) == ("crashed", 1.235, 0.123)


def test_what_a_model_can_do_by_the_config_is_advertised() -> None:
    said = {"in": ["text", "audio"], "tools": True, "context": 8192}
    info = msgspec.structs.replace(ALPHA, capabilities=said)
    shown = listed_object(ListedModel(id="alpha", info=info))
    assert shown["architecture"] == {
        "input_modalities": ["text", "audio"],
        "output_modalities": ["text"],
    }
    assert shown["capabilities"] == {**said, "function_calling": True}
    assert shown["supported_parameters"] == ["tools", "tool_choice"]
    assert shown["context_length"] == 8192
    assert "capabilities" not in listed_object(ListedModel(id="alpha", info=ALPHA))


def test_what_is_said_of_a_model_does_not_change_the_form_of_the_list() -> None:
    for said in (
        {"in": "text", "out": 5, "context": "long"},
        {"in": [1], "out": {"a": 1}, "context": [1]},
        {"in": ["text", None], "out": True, "context": True},
    ):
        info = msgspec.structs.replace(ALPHA, capabilities=said)
        shown = listed_object(ListedModel(id="alpha", info=info))
        assert (
            shown["architecture"]
            == listed_object(ListedModel(id="alpha", info=ALPHA))["architecture"]
        )
        assert "context_length" not in shown
        assert shown["capabilities"] == {**said, "function_calling": False}
