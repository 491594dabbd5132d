import json
from pathlib import Path
from typing import Any

import pytest

from llama_router.cli import record_fleet
from llama_router.cli.record_fleet import (
    NoFiguresError,
    Residency,
    ask_fleet,
    fleet_of,
    write_fleet,
)
from llama_router.cli.router_client import Address
from llama_router.simulator.fleet import read_fleet

ADDRESS = Address("http://127.0.0.1:1")


def residency(load_cost_s: float = 2.0, **memory: int) -> Residency:
    return Residency(memory=memory, load_cost_s=load_cost_s)


def test_the_machine_is_the_device_that_is_short_first() -> None:
    models: dict[str, Residency | None] = {
        "a": residency(cuda0=60, cpu=10),
        "b": residency(3.0, cuda0=60, cpu=20),
        "on-cpu": residency(cpu=500),
        "too-large": residency(cuda0=1000),
    }
    fleet = fleet_of({"cpu": 10_000, "cuda0": 100}, models)
    assert (fleet.machine.device, fleet.machine.memory_bytes) == ("cuda0", 100)
    sizes = {model.name: model.size_bytes for model in fleet.models}
    assert sizes == {"a": 60, "b": 60, "on-cpu": 1, "too-large": 100}
    assert fleet.load_s(fleet.models[1]) == 3.0


def test_who_is_not_known_takes_all_of_it() -> None:
    fleet = fleet_of({"cpu": 100}, {"gone": None, "new": residency(5.0)})
    assert [(model.size_bytes, model.load_s) for model in fleet.models] == [(100, None), (100, 5.0)]


@pytest.mark.parametrize(
    ("budgets", "models", "why"),
    [
        ({}, {"a": None}, "does not look at memory"),
        ({"cpu": 0}, {"a": None}, "does not look at memory"),
        ({"cpu": 1}, {}, "no request"),
    ],
)
def test_without_figures_there_is_no_fleet(
    budgets: dict[str, int], models: dict[str, Residency | None], why: str
) -> None:
    with pytest.raises(NoFiguresError, match=why):
        fleet_of(budgets, models)


def test_what_the_router_says_is_written_for_the_simulator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = {"memory": {"cpu": 60}, "load_cost_s": 2.5, "pinned": True, "ttl_s": 300, "waiting": 0}
    answers: dict[str, Any] = {
        "/admin/status": {"devices": [{"name": "cpu", "budget_bytes": 100, "free_bytes": 3}]},
        "/v1/models": {"data": [{"id": "a", "residency": shown}, {"id": "b", "residency": shown}]},
    }
    monkeypatch.setattr(record_fleet, "ask", lambda _address, _method, path: answers[path])
    path = tmp_path / "fleet.json"
    write_fleet(path, ask_fleet(ADDRESS, {"a", "gone"}))
    a, gone = read_fleet(path).models
    assert (a.name, a.size_bytes, a.load_s, a.pinned, a.ttl_s) == ("a", 60, 2.5, True, 300)
    assert (gone.name, gone.size_bytes) == ("gone", 100)
    answers["/v1/models"] = json.loads('{"data": [{"id": "a"}]}')
    with pytest.raises(NoFiguresError, match="of another version"):
        ask_fleet(ADDRESS, {"a"})
