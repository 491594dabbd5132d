import subprocess
import sys
from pathlib import Path

import pytest

from llama_router.engines import devices
from llama_router.engines.devices import Budget, Device, budgets, parse_listed_devices
from tests.support.tools import llama_server_path

GIB = 2**30
MIB = 2**20

LISTED = """\
ggml_cuda_init: found 2 CUDA devices:
Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)
  CUDA1: NVIDIA (odd) name: x (8192 MiB, 100 MiB free)
  Metal: Apple M2 Max (21845 MiB, 21845 MiB free)
"""


def test_listed_devices_are_read() -> None:
    assert parse_listed_devices(LISTED) == (
        Device("cuda0", 24080 * MIB, 23500 * MIB, "NVIDIA GeForce RTX 4090"),
        Device("cuda1", 8192 * MIB, 100 * MIB, "NVIDIA (odd) name: x"),
        Device("metal", 21845 * MIB, 21845 * MIB, "Apple M2 Max"),
    )


def test_no_devices_are_not_the_same_as_another_output() -> None:
    assert parse_listed_devices("Available devices:\n  (none)\n") == ()
    assert parse_listed_devices("error: unknown argument: --list-devices") is None
    assert parse_listed_devices("") is None


@pytest.mark.llama_server
def test_a_real_llama_server_is_asked() -> None:
    found = devices.list_devices(llama_server_path())

    assert found is not None
    assert all(device.total_bytes > 0 for device in found)


def test_a_program_that_is_none_is_no_fault(tmp_path: Path) -> None:
    assert devices.list_devices(tmp_path / "missing") is None
    assert devices.list_devices(Path(sys.executable)) is None


def test_this_machine_has_ram() -> None:
    ram = devices.find_devices()[0]

    assert ram.name == "cpu"
    assert 0 < ram.available_bytes <= ram.total_bytes


def test_a_reserve_is_left_and_what_engines_hold_is_theirs() -> None:
    found = (Device("cpu", 32 * GIB, 10 * GIB), Device("cuda0", 24 * GIB, 4 * GIB))

    assert budgets(found, reserve_bytes=GIB, held_bytes={"cpu": 3 * GIB, "cuda0": 19 * GIB}) == (
        Budget("cpu", 12 * GIB),
        Budget("cuda0", 22 * GIB),
    )


def test_without_a_word_a_gibibyte_of_a_card_and_a_tenth_of_the_ram_are_left() -> None:
    found = [Device("cpu", 40 * GIB, 30 * GIB), Device("cuda0", 24 * GIB, 23 * GIB)]

    assert [budget.size_bytes for budget in budgets(found)] == [26 * GIB, 22 * GIB]


def test_overrides_are_taken_as_they_are() -> None:
    found = (Device("cpu", 32 * GIB, 10 * GIB), Device("cuda0", 24 * GIB, 4 * GIB))

    assert budgets(found, overrides={"CUDA0": 0, "rocm7": GIB}, reserve_bytes=0) == (
        Budget("cpu", 10 * GIB),
        Budget("cuda0", 0),
        Budget("rocm7", GIB),
    )


def test_a_device_that_is_full_has_no_budget() -> None:
    assert budgets([Device("cuda0", GIB, 0)])[0].size_bytes == 0


def test_of_the_ram_there_is_always_a_little() -> None:
    assert budgets([Device("cpu", 16 * GIB, GIB)])[0].size_bytes == GIB // 4
    assert budgets([Device("cpu", GIB // 8, 0)])[0].size_bytes == GIB // 8
    assert budgets([Device("cpu", GIB, GIB)], overrides={"cpu": 0})[0].size_bytes == 0


def test_a_program_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_arguments: object, **options: float) -> None:
        raise subprocess.TimeoutExpired("llama-server", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)

    assert devices.list_devices(Path("llama-server")) is None
