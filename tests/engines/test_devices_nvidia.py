import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from llama_router.engines import devices_nvidia
from llama_router.engines.devices_nvidia import Card, cards_of, held_by, visible_indices

UUIDS = ("GPU-aaa1", "GPU-aab2", "GPU-c3")


class NvmlStub:
    """What nvidia-ml-py answers, as recorded of it."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, lost: int = -1) -> None:
        self.lost = lost
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802 - as above
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - as above
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - as above
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802 - as above
        return UUIDS[handle]

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802 - as above
        return b"NVIDIA %d" % handle

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802, ANN401 - as above
        if handle == self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(total=100 + handle, free=50 + handle, used=50)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802 - as above
        used = [(7, 10 * (handle + 1)), (8, None), (9, 5)]
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in used]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802 - as above
        used = [(7, 10 * (handle + 1)), (10, 3)]
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in used]


def test_cards_are_numbered_as_cuda_programs_see_them() -> None:
    assert cards_of(NvmlStub(), "2,0") == (
        Card("cuda0", 102, 52, "NVIDIA 2"),
        Card("cuda1", 100, 50, "NVIDIA 0"),
    )
    assert len(cards_of(NvmlStub(), None)) == 3


def test_a_card_that_is_lost_is_left_out() -> None:
    assert [card.name for card in cards_of(NvmlStub(lost=1), None)] == ["cuda0", "cuda2"]


def test_what_processes_hold_is_summed_by_card() -> None:
    assert held_by(NvmlStub(), frozenset({7, 8}), None) == {"cuda0": 10, "cuda1": 20, "cuda2": 30}
    assert held_by(NvmlStub(), frozenset({7, 10}), None)["cuda0"] == 13
    assert held_by(NvmlStub(), frozenset({1}), None) == {}


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, (0, 1, 2)),
        ("", ()),
        ("1", (1,)),
        ("2,0", (2, 0)),
        ("0,-1,2", (0,)),
        ("0,7,1", (0,)),
        ("GPU-c3,GPU-aaa", (2, 0)),
        ("GPU-aa", ()),
        ("0,0", (0,)),
    ],
)
def test_visible_cards(visible: str | None, indices: tuple[int, ...]) -> None:
    assert visible_indices(visible, UUIDS) == indices


def test_without_the_package_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    assert devices_nvidia.find_cards() == ()
    assert devices_nvidia.memory_of_processes([1]) == {}


def test_the_library_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = NvmlStub()
    monkeypatch.setattr(importlib, "import_module", lambda _name: nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    assert len(devices_nvidia.find_cards()) == 3
    assert devices_nvidia.memory_of_processes([9])["cuda0"] == 5
    assert not nvml.is_open
