from pathlib import Path

import msgspec
import pytest

from llama_router.core.events import DeviceBytes
from llama_router.simulator.fleet import (
    GB,
    Fleet,
    FleetError,
    Machine,
    SimulatedModel,
    checked,
    random_fleet,
    read_fleet,
)
from llama_router.simulator.generate import names


def test_a_load_takes_what_its_size_and_the_machine_say() -> None:
    fleet = Fleet(Machine(100 * GB, 4e9, 1.5), (SimulatedModel("a", 8 * GB),))
    assert fleet.load_s(fleet.models[0]) == 3.5
    assert fleet.load_s(SimulatedModel("b", 8 * GB, load_s=2.0)) == 2.0


def test_the_core_is_told_memory_and_cost_and_waits_long_enough() -> None:
    model = SimulatedModel("a", 80 * GB, slots=3, pinned=True, ttl_s=9.0, priority=2)
    (spec,) = Fleet(Machine(100 * GB, 1e9, 0.0), (model,)).specs()
    assert spec.memory == (DeviceBytes("gpu0", 80 * GB),)
    assert (spec.group, spec.load_cost_s, spec.ready_timeout_s) == ("", 80.0, 320.0)
    assert (spec.max_in_flight, spec.pinned, spec.ttl_s, spec.priority) == (3, True, 9.0, 2)


def test_the_safe_count_fits_even_with_the_largest() -> None:
    sizes = (1, 2, 30, 40, 10)
    models = tuple(SimulatedModel(f"m{size}", size) for size in sizes)
    assert Fleet(Machine(80), models).safe_count() == 3
    assert Fleet(Machine(79), models).safe_count() == 2
    assert Fleet(Machine(1000), models).safe_count() == 5


def test_a_random_fleet_has_its_sizes_and_its_room() -> None:
    fleet = random_fleet(names(30), 5)
    sizes = [model.size_bytes for model in fleet.models]
    assert fleet == random_fleet(names(30), 5)
    assert fleet != random_fleet(names(30), 6)
    assert min(sizes) >= GB
    assert max(sizes) <= 40 * GB
    assert fleet.machine.memory_bytes == pytest.approx(6 * sum(sizes) / 30, rel=1e-6)


def test_a_fleet_is_read_from_json(tmp_path: Path) -> None:
    fleet = random_fleet(names(3), 0)
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode(fleet))
    assert read_fleet(path) == fleet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fleet.json"),
        ('{"machine": {"memory_bytes": 5}, "models": []}', "1 to"),
        ('{"machine": {"memory_bytes": 5, "disk": 1}, "models": []}', "disk"),
        (
            '{"machine": {"memory_bytes": 5}, "models": [{"name": "a", "size_bytes": 6}]}',
            "needs 6 bytes",
        ),
    ],
)
def test_a_fleet_that_makes_no_sense_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(text)
    with pytest.raises(FleetError, match=message):
        read_fleet(path)


@pytest.mark.parametrize(
    ("machine", "models"),
    [
        (Machine(9, load_bandwidth_bytes_s=0), [SimulatedModel("a", 1)]),
        (Machine(9, stop_s=-1), [SimulatedModel("a", 1)]),
        (Machine(9), [SimulatedModel("a", 1, load_s=float("nan"))]),
        (Machine(9), [SimulatedModel("a", 1), SimulatedModel("a", 2)]),
        (Machine(9), [SimulatedModel("a", 0)]),
        (Machine(9), [SimulatedModel("a", 1, slots=0)]),
    ],
)
def test_impossible_numbers_are_refused(machine: Machine, models: list[SimulatedModel]) -> None:
    with pytest.raises(FleetError):
        checked(Fleet(machine, tuple(models)), "f")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FleetError):
        read_fleet(tmp_path / "none")
