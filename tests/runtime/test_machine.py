import sys
from pathlib import Path

import pytest

from llama_router.config.schema import RouterSettings
from llama_router.engines import devices, devices_nvidia, measure
from llama_router.engines.devices import Device
from llama_router.runtime import machine as machines
from llama_router.runtime.machine import Machine, budgets_of, in_words, is_other

GIB = 2**30
RAM = Device("cpu", 40 * GIB, 30 * GIB)
CARD = Device("cuda0", 24 * GIB, 20 * GIB)
BOTH = Machine(devices=(RAM, CARD), measurable=frozenset({"cpu", "cuda0"}))


def test_budgets_are_what_is_free_less_a_reserve_or_what_the_config_says() -> None:
    assert budgets_of(BOTH, RouterSettings()) == {"cpu": 26 * GIB, "cuda0": 19 * GIB}
    assert budgets_of(BOTH, RouterSettings(memory_reserve=2 * GIB)) == {
        "cpu": 28 * GIB,
        "cuda0": 18 * GIB,
    }
    said = RouterSettings(memory={"cuda0": 5 * GIB})
    assert budgets_of(BOTH, said) == {"cpu": 26 * GIB, "cuda0": 5 * GIB}
    # What engines hold of it already is theirs.
    held = {"cpu": 4 * GIB, "cuda0": GIB}
    assert budgets_of(BOTH, RouterSettings(), held) == {"cpu": 30 * GIB, "cuda0": 20 * GIB}


def test_without_memory_awareness_there_are_no_budgets() -> None:
    assert budgets_of(BOTH, RouterSettings(memory_aware=False, memory={"cpu": GIB})) == {}


def test_the_line_for_people_names_each_device() -> None:
    assert in_words(BOTH, {"cpu": 26 * GIB, "cuda0": 19 * GIB, "rocm1": GIB}) == (
        "memory for models: 26.0 of 40.0 GiB of RAM, 19.0 of 24.0 GiB of cuda0, 1.0 GiB of rocm1"
    )
    assert "not looked at" in in_words(BOTH, {})


def test_small_changes_are_none() -> None:
    old = {"cpu": 26 * GIB, "cuda0": 19 * GIB}
    assert not is_other(BOTH, old, {"cpu": 26 * GIB - GIB // 2, "cuda0": 19 * GIB})
    assert is_other(BOTH, old, {"cpu": 25 * GIB, "cuda0": 19 * GIB})
    assert is_other(BOTH, old, {"cpu": 26 * GIB, "cuda0": 20 * GIB})


def test_where_holders_cannot_be_told_a_device_is_looked_at_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = (Device("cpu", 40 * GIB, 9 * GIB), Device("rocm0", 16 * GIB, GIB))
    monkeypatch.setattr(devices, "find_devices", lambda: now)
    monkeypatch.setattr(devices_nvidia, "memory_of_processes", lambda _pids: {})
    monkeypatch.setattr(measure, "unreclaimable_bytes", lambda pid: pid * GIB)
    before = Machine(
        devices=(RAM, Device("rocm0", 16 * GIB, 16 * GIB)), measurable=frozenset({"cpu"})
    )
    after, held = machines.look_again(before, [1, 2])
    assert after.devices == (now[0], before.devices[1])
    assert held == {"cpu": 3 * GIB}


@pytest.mark.parametrize("has_signs", [True, False])
def test_the_engine_is_asked_for_cards_where_there_are_signs_of_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_signs: bool
) -> None:
    sign = tmp_path / "nvidia0"
    if has_signs:
        sign.touch()
    monkeypatch.setattr(machines, "_CARD_SIGNS", (str(sign),))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "find_devices", lambda: (RAM,))
    monkeypatch.setattr(devices_nvidia, "find_cards", tuple)
    monkeypatch.setattr(devices, "list_devices", lambda _program, _timeout_s: (CARD,))
    found = machines.look_around(tmp_path / "llama-server")
    assert found.devices == ((RAM, CARD) if has_signs else (RAM,))
    assert found.measurable == {"cpu"}


def test_a_card_that_only_the_config_knows_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_devices", lambda: (RAM, CARD))
    found = machines.look_around(None, {"cpu": GIB, "cuda0": 2 * GIB, "rocm0": GIB, "rocm1": 0})
    assert found.devices == (RAM, CARD, Device("rocm0", GIB, GIB))
    assert [device.name for device in found.cards] == ["cuda0", "rocm0"]


def test_this_machine_can_be_looked_at_twice() -> None:
    found = machines.look_around(None)
    again, held = machines.look_again(found, [])
    assert again.total_bytes == found.total_bytes
    assert held["cpu"] == 0
