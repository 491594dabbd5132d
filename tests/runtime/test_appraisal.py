from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.config.schema import Config
from llama_router.engines.devices import Device
from llama_router.engines.kinds.embedded import embedded_command
from llama_router.runtime.appraisal import Appraised, Appraiser, with_seen
from llama_router.runtime.machine import Machine
from llama_router.runtime.roster import build_roster
from llama_router.store.records import Footprint, FootprintKey

GIB = 2**30
MIB = 2**20
RAM = Device("cpu", 32 * GIB, 30 * GIB)
CARD = Device("cuda0", 24 * GIB, 24 * GIB)
BUDGETS = {"cpu": 8 * GIB}
FIT_TARGET, CACHE_RAM = "LLAMA_ARG_FIT_TARGET", "LLAMA_ARG_CACHE_RAM"
LLAMA = ["/opt/llama-server", "--model", "$path", "--port", "$port"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A model whose context of 128 Ki tokens takes 32 GiB."""
    path = tmp_path / "a.gguf"
    shape = Shape(
        layers=32, embedding_length=1024, heads=8, kv_heads=8, key_length=256, context_length=131072
    )
    write_synthetic(path, shape)
    return str(path)


def appraise(
    entry: dict[str, Any],
    *,
    command: list[str] | None = None,
    devices: tuple[Device, ...] = (RAM,),
    budgets: Mapping[str, int] = BUDGETS,
    remembered: Mapping[FootprintKey, Footprint] | None = None,
    env: Mapping[str, str] | None = None,
    configured: Mapping[str, int] | None = None,
) -> Appraised:
    content = {"models": [{"name": "a", **entry}], "default_spawn": {"command": command or LLAMA}}
    roster = build_roster(Config.model_validate(content), [])
    appraiser = Appraiser(
        machine=Machine(
            devices=devices, measurable=frozenset({"cpu"}), configured=configured or {}
        ),
        env=env or {},
        found_llama_server=None,
        remembered=lambda: remembered or {},
    )
    return appraiser.appraise(roster["a"], budgets)


def test_a_llama_server_is_estimated_from_its_file_and_command(file: str) -> None:
    small = appraise({"path": file}, command=[*LLAMA, "-c", "4096", "-np", "2"])
    assert small.footprint is not None
    assert GIB < small.footprint.by_device["cpu"] < 3 * GIB
    # What it keeps of prompts comes with time, and is counted on.
    assert small.memory == small.footprint.reserve(BUDGETS)
    assert (small.slots, FIT_TARGET in small.env) == (2, False)
    assert not small.configured


def test_a_context_that_nobody_chose_is_made_to_fit_the_budget(file: str) -> None:
    fitted = appraise({"path": file})
    assert 6 * GIB < fitted.memory["cpu"] <= BUDGETS["cpu"]
    target_mib = int(fitted.env["LLAMA_ARG_FIT_TARGET"])
    assert target_mib % 256 == 0
    assert 32 * 1024 - target_mib <= 8 * 1024
    assert fitted.footprint is not None
    assert fitted.footprint.ctx_tokens < 131072
    # A little more or less is free at each start; what was measured is found all the same.
    again = appraise({"path": file}, budgets={"cpu": BUDGETS["cpu"] + 20 * MIB})
    assert again.key == fitted.key or again.env != fitted.env


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ([*LLAMA, "-c", "131072"], {}),
        ([*LLAMA, "--fit", "off"], {}),
        ([*LLAMA, "--fit-target", "1024"], {}),
        (LLAMA, {"LLAMA_ARG_FIT_TARGET": "1024"}),
    ],
)
def test_a_context_that_somebody_chose_is_left_alone(
    file: str, command: list[str], env: dict[str, str]
) -> None:
    found = appraise({"path": file}, command=command, env=env)
    assert FIT_TARGET not in found.env
    assert found.footprint is not None
    assert found.footprint.by_device["cpu"] > 25 * GIB


@pytest.mark.parametrize(
    ("ram_gib", "budgets", "configured", "limit_mib"),
    [
        (16, BUDGETS, {}, "2048"),
        (64, BUDGETS, {}, None),
        (64, BUDGETS, BUDGETS, "1024"),
        (16, {}, {}, None),
    ],
)
def test_prompts_are_kept_as_befits_the_ram(
    file: str,
    ram_gib: int,
    budgets: Mapping[str, int],
    configured: Mapping[str, int],
    limit_mib: str | None,
) -> None:
    devices = (Device("cpu", ram_gib * GIB, 10 * GIB),)
    found = appraise({"path": file}, devices=devices, budgets=budgets, configured=configured)
    assert found.env.get(CACHE_RAM) == limit_mib
    if limit_mib is not None:
        assert found.footprint is not None
        (need,) = found.footprint.needs
        assert need.kept_prompts + found.footprint.may_grow_bytes == int(limit_mib) * MIB
    said = appraise({"path": file}, devices=devices, budgets=budgets, env={CACHE_RAM: "100"})
    assert CACHE_RAM not in said.env


def test_a_model_larger_than_what_is_free_gets_all_of_it_to_itself(file: str) -> None:
    laptop = (Device("cpu", 16 * GIB, 5 * GIB),)
    # Its weights are pages of a file; its context is as small as llama-server makes it.
    found = appraise({"path": file}, devices=laptop, budgets={"cpu": GIB})
    assert found.memory == {"cpu": GIB}
    assert found.footprint is not None
    assert found.footprint.ctx_tokens == 4096
    chosen = appraise({"path": file}, command=[*LLAMA, "-c", "32768"], devices=laptop)
    assert chosen.memory == BUDGETS
    # More than there is altogether, or than may be taken: that is refused.
    chosen = appraise({"path": file}, command=[*LLAMA, "-c", "131072"], devices=laptop)
    assert chosen.memory["cpu"] > 16 * GIB
    bound = appraise(
        {"path": file},
        command=[*LLAMA, "-c", "65536"],
        budgets=BUDGETS,
        configured=BUDGETS,
    )
    assert bound.memory["cpu"] > 16 * GIB
    # An engine that ran out of memory with it has shown that it is too little.
    raised = msgspec.structs.replace(found, floor={"cpu": 2 * GIB})
    assert with_seen(raised, {}, {"cpu": GIB}, {"cpu"}).memory == {"cpu": 2 * GIB}


@pytest.mark.parametrize("flags", [["--load-mode", "none"], ["--mlock"], ["--no-mmap"]])
def test_weights_that_are_not_mapped_have_to_fit_the_machine(file: str, flags: list[str]) -> None:
    command = [*LLAMA, "-c", "4096"]
    assert appraise({"path": file}, command=command).mapped_bytes > 0
    assert appraise({"path": file}, command=[*command, *flags]).mapped_bytes == 0


def test_the_embedded_engine_is_kept_within_the_budget_as_well(file: str) -> None:
    command = list(embedded_command(LLAMA[1:]))
    # Of llama-server's variables it reads those two only.
    env = {"LLAMA_ARG_CTX_SIZE": "1024"}
    found = appraise({"path": file}, command=command, env=env)
    assert found.memory["cpu"] <= BUDGETS["cpu"]
    assert set(found.env) == {FIT_TARGET, CACHE_RAM}
    assert found.footprint is not None
    assert 4096 < found.footprint.ctx_tokens < 131072
    # Where it may use a card or not, a margin would be for another device than it is meant for.
    both = appraise({"path": file}, command=command, devices=(RAM, CARD))
    assert set(both.env) == {CACHE_RAM}


def test_a_card_that_a_program_has_another_name_for_is_counted_on(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = (Device("vulkan0", 24 * GIB, 24 * GIB),)
    monkeypatch.setattr(
        "llama_router.runtime.appraisal.devices.list_devices", lambda *_arguments: listed
    )
    budgets = {"cpu": 30 * GIB, "cuda0": 23 * GIB}
    found = appraise({"path": file}, devices=(RAM, CARD), budgets=budgets)
    assert found.memory["cuda0"] > GIB


def test_what_the_config_says_counts_for_more(file: str) -> None:
    assert appraise({"path": file, "memory": "5GiB"}).memory == {"cpu": 5 * GIB}
    on_card = appraise({"path": file, "memory": "5GiB"}, devices=(RAM, CARD))
    assert on_card.memory == {"cuda0": 5 * GIB}
    both = {"cpu": GIB, "cuda0": 2 * GIB}
    found = appraise({"memory": both}, command=["vllm", "$port"])
    assert (found.memory, found.configured) == (both, both)


def test_of_another_command_nothing_is_known_but_what_was_measured() -> None:
    command = ["engine", "--port", "$port"]
    unknown = appraise({}, command=command)
    assert unknown.memory == {}
    assert unknown.key is not None
    measured = {unknown.key: Footprint({"cpu": 3 * GIB}, 7.5, 0.0)}
    known = appraise({}, command=command, remembered=measured)
    # With room to grow, as nobody knows what it has not shown yet.
    assert (known.memory, known.load_s) == ({"cpu": 3 * GIB * 5 // 4}, 7.5)
    # But what has run runs again, though it grew as large as the machine.
    large = {unknown.key: Footprint({"cpu": 7 * GIB}, 7.5, 0.0)}
    assert appraise({}, command=command, remembered=large).memory == BUDGETS
    # Another argument is another engine.
    assert appraise({}, command=[*command, "-x"], remembered=measured).memory == {}
    said = appraise({"memory": "4GiB"}, command=command, remembered=measured)
    assert (said.memory, said.load_s) == ({"cpu": 4 * GIB}, 7.5)
    # More than was said has been seen.
    less = appraise({"memory": "1GiB"}, command=command, remembered=measured)
    assert less.memory == {"cpu": 3 * GIB}


def test_what_was_measured_replaces_the_estimate(file: str) -> None:
    command = [*LLAMA, "-c", "4096", "--cache-ram", "0"]
    estimated = appraise({"path": file}, command=command)
    assert estimated.key is not None
    assert estimated.footprint is not None
    measured = {estimated.key: Footprint({"cpu": 3 * GIB}, 1.0, 0.0)}
    assert appraise({"path": file}, command=command, remembered=measured).memory["cpu"] == 3 * GIB
    # The memory that an environment asks for is part of it.
    env = {"LLAMA_ARG_CACHE_TYPE_K": "q8_0"}
    other = appraise({"path": file}, command=command, remembered=measured, env=env)
    assert other.memory["cpu"] < 2 * GIB
    # An engine that has done nothing yet holds less than it will.
    young = with_seen(estimated, {"cpu": GIB}, BUDGETS, {"cpu"})
    assert GIB < young.memory["cpu"] <= estimated.memory["cpu"]
    # On a device of which nothing can be seen the estimate stands.
    assert with_seen(estimated, {"cpu": GIB}, BUDGETS, ()).memory == estimated.memory


def test_an_engine_that_ran_out_of_memory_is_expected_to_need_more_than_was_seen(file: str) -> None:
    found = appraise({"path": file}, command=[*LLAMA, "-c", "4096"])
    raised = msgspec.structs.replace(found, floor={"cpu": 5 * GIB})
    assert with_seen(raised, {"cpu": 2 * GIB}, BUDGETS, {"cpu"}).memory == {"cpu": 5 * GIB}


def test_what_cannot_be_told_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but no more")
    assert appraise({"path": str(tmp_path / "bad.gguf")}).memory == {}
    assert appraise({}, command=[*LLAMA, "-c", "many"]).memory == {}
    assert appraise({}, command=["engine", "$path", "$port"]).memory == {}


def test_a_card_that_the_program_does_not_see_is_not_counted_on(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def list_devices(program: Path, _timeout_s: float) -> tuple[Device, ...]:
        asked.append(program)
        return () if program == Path("/cpu/llama-server") else (CARD,)

    monkeypatch.setattr("llama_router.runtime.appraisal.devices.list_devices", list_devices)
    budgets = {"cpu": 30 * GIB, "cuda0": 23 * GIB}
    flags = [*LLAMA[1:], "-c", "4096"]
    for program, devices in (
        ("/gpu/llama-server", {"cpu", "cuda0"}),
        ("/cpu/llama-server", {"cpu"}),
    ):
        found = appraise(
            {"path": file}, command=[program, *flags], devices=(RAM, CARD), budgets=budgets
        )
        assert set(found.memory) == devices
    assert len(asked) == 2


def test_where_memory_is_not_looked_at_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no")
    found = appraise({"path": str(tmp_path / "bad.gguf")}, command=[*LLAMA, "-np", "3"], budgets={})
    assert (found.memory, found.slots) == ({}, 3)


def test_what_fits_itself_to_a_card_is_never_too_large_for_it(file: str) -> None:
    budgets = {"cpu": 30 * GIB, "cuda0": 23 * GIB}
    command = ["/opt/no-llama/engine", *LLAMA[1:]]
    assert appraise({"path": file}, command=command).memory == {}
    found = appraise({"path": file}, devices=(RAM, CARD), budgets=budgets)
    assert found.memory["cuda0"] <= budgets["cuda0"]
    assert found.within == {"cuda0"}
