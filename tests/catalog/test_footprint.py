from pathlib import Path

import msgspec
import pytest

from llama_router.catalog.footprint import Footprint, Machine, Model, estimate, expect, read_model
from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_placement import PURPOSES, Gpu
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.gguf_tensors import TensorBytes
from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.catalog.tiny import write_model
from tests.support.headers import header

GIB = 2**30
MIB = 2**20

# Llama 3.1 8B in Q4_K_M, about.
LLAMA_8B = header(
    layers=32,
    heads=32,
    kv_heads=8,
    embedding_length=4096,
    feed_forward_length=(14336,),
    context_length=131072,
    vocabulary=128256,
    tensors=TensorBytes(
        blocks=(130 * MIB,) * 32, input=280 * MIB, output=410 * MIB, output_weight=410 * MIB
    ),
)


def found(arguments: str, machine: Machine | None = None) -> Footprint:
    return estimate(Model(LLAMA_8B), parse_arguments(arguments.split()), machine)


def test_everything_is_in_ram_without_graphics_cards() -> None:
    need = found("-c 32768 -np 1").needs[0]

    assert need.device == "cpu"
    assert need.weights == LLAMA_8B.tensors.total
    assert need.kv_cache == 4 * GIB
    assert need.total == sum(getattr(need, purpose) for purpose in PURPOSES)


def test_the_whole_model_goes_to_a_card_that_has_room() -> None:
    cpu, card = found("-c 32768 -np 1", Machine(gpus=(Gpu("cuda0", 24 * GIB),))).needs

    assert (card.device, card.kv_cache) == ("cuda0", 4 * GIB)
    assert card.weights == LLAMA_8B.tensors.total - 280 * MIB
    assert (cpu.weights, cpu.kv_cache) == (280 * MIB, 0)


def test_fit_takes_less_context_when_ram_is_short() -> None:
    ample = found("", Machine(ram_bytes=64 * GIB))
    short = found("", Machine(ram_bytes=12 * GIB))

    assert ample.ctx_tokens == 131072
    assert 4096 < short.ctx_tokens < 131072
    assert short.ctx_tokens % 256 == 0
    # It leaves a GiB free; the engine itself is not counted by it.
    counted = short.total - short.needs[0].overhead
    assert 10.9 * GIB < counted <= 11 * GIB
    assert "--fit" in short.notes[0]


@pytest.mark.parametrize("arguments", ["-c 131072", "-c 0", "--fit off"])
def test_a_context_that_was_asked_for_stays(arguments: str) -> None:
    assert found(arguments, Machine(ram_bytes=12 * GIB)).ctx_tokens == 131072


def test_fit_leaves_layers_in_ram_when_a_card_is_short() -> None:
    machine = Machine(ram_bytes=64 * GIB, gpus=(Gpu("cuda0", 6 * GIB),))
    part = found("-c 8192 -np 1", machine)
    given = found("-c 8192 -np 1 -ngl 33", machine)

    card = part.needs[1]
    assert 0 < part.gpu_layers < 33
    assert card.total - card.overhead <= 5 * GIB
    assert given.gpu_layers == 33


def test_fit_passes_over_a_card_that_is_full() -> None:
    machine = Machine(ram_bytes=64 * GIB, gpus=(Gpu("cuda0", 5 * GIB), Gpu("cuda1", GIB // 2)))

    part = found("-c 8192 -np 1", machine)

    assert part.gpu_layers > 10
    assert part.by_device["cuda0"] > 3 * GIB
    assert part.needs[2].weights == 0


def test_a_draft_model_and_a_projector_come_on_top() -> None:
    projector = header(
        "clip",
        tensors=TensorBytes(other=600 * MIB),
        vision__image_size=384,
        vision__patch_size=16,
        vision__embedding_length=1024,
        vision__feed_forward_length=4096,
    )
    draft = header(layers=2, context_length=131072, tensors=TensorBytes(blocks=(100 * MIB,) * 2))
    arguments = LaunchArguments(ctx_size=4096, slots=1)

    alone = estimate(Model(LLAMA_8B), arguments).needs[0]
    both = estimate(Model(LLAMA_8B, projector, draft), arguments).needs[0]

    assert 600 * MIB < both.projector < 640 * MIB
    # Its weights and its own cache of 4096 cells.
    assert 200 * MIB + 2 * 4096 * 2 * 1024 * 2 < both.draft < 300 * MIB
    assert both.total > alone.total + both.projector + both.draft


def test_layers_that_draft_have_a_cache_of_their_own_once_they_are_used() -> None:
    info = header("glm4moe", layers=3, nextn_predict_layers=1)
    unused = estimate(Model(info), parse_arguments(["-c", "4096"])).needs[0]
    used = estimate(Model(info), parse_arguments(["-c", "4096", "--spec-type", "draft-mtp"]))

    one_layer_bytes = 4096 * 2 * 1024 * 2
    assert (unused.draft, unused.kv_cache) == (0, 2 * one_layer_bytes)
    assert used.needs[0].kv_cache == 2 * one_layer_bytes
    assert used.needs[0].draft > one_layer_bytes
    assert used.by_device == {"cpu": used.total}


def test_kept_prompts_do_not_make_a_model_too_large_for_its_device() -> None:
    footprint = found("-c 32768 -np 1")
    total = footprint.total

    assert footprint.needs[0].kept_prompts == 4 * GIB
    assert footprint.reserve() == {"cpu": total + 4 * GIB}
    assert footprint.reserve({"cpu": total + GIB}) == {"cpu": total + GIB}
    assert footprint.reserve({"cpu": total - GIB}) == {"cpu": total}
    assert found("-c 32768 -np 1 -cram 0").reserve() == {"cpu": total}


def test_kept_prompts_are_in_ram_even_when_the_model_is_on_a_card() -> None:
    cpu, card = found("-c 32768 -np 1", Machine(gpus=(Gpu("cuda0", 24 * GIB),))).needs

    assert (cpu.kept_prompts, card.kept_prompts) == (4 * GIB, 0)
    assert (cpu.lasting, card.lasting) == (cpu.total + 4 * GIB, card.total)


def test_a_measurement_corrects_an_estimate_but_a_young_engine_is_not_taken_for_a_small_one() -> (
    None
):
    footprint = found("-c 32768 -np 1")
    expected = footprint.reserve()["cpu"]
    by_use = footprint.needs[0].by_use

    def reserved(peak: int) -> int:
        return footprint.reserve_measured({"cpu": peak})["cpu"]

    assert by_use >= 4 * GIB + footprint.needs[0].compute
    # All that comes with use is still to come.
    assert reserved(expected - by_use) == expected
    # The rest takes less than was thought.
    assert reserved(expected - by_use - GIB) == expected - GIB
    # Half of what comes with use has come.
    assert reserved(expected - by_use // 2) == expected
    assert reserved(expected + GIB) == expected + GIB
    assert footprint.reserve_measured({}) == {"cpu": expected}
    assert footprint.reserve_measured({"cuda7": 5})["cuda7"] == 5


def test_what_is_measured_on_a_card_is_all_there_will_be() -> None:
    footprint = found("-c 32768 -np 1", Machine(gpus=(Gpu("cuda0", 24 * GIB),)))

    reserved = footprint.reserve_measured({"cuda0": 5 * GIB})

    assert reserved == {**footprint.reserve(), "cuda0": 5 * GIB}


def test_a_command_is_all_it_takes(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "m.gguf", Shape())
    command = ["/opt/llama-server", "-m", str(path), "-c", "1024"]

    expected = estimate(read_model(path, LaunchArguments()), LaunchArguments(ctx_size=1024))

    assert expect(path, command) == expected
    assert expect(path, command[:3], environment={"LLAMA_ARG_CTX_SIZE": "1024"}) == expected


def test_parts_of_a_split_model_are_summed(tmp_path: Path) -> None:
    (whole,) = write_model(tmp_path / "whole.gguf", "one two three", name="x")
    parts = write_model(tmp_path / "split.gguf", "one two three", name="x", split=3)

    together = read_model(parts[0], LaunchArguments(), parts=tuple(parts))

    assert together.info.tensors == read_model(whole, LaunchArguments()).info.tensors


def test_a_file_that_the_arguments_name_must_be_readable(tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "m.gguf", Shape())
    missing = LaunchArguments(mmproj=tmp_path / "missing.gguf")

    with pytest.raises(GgufError):
        read_model(path, missing)
    assert read_model(path, msgspec.structs.replace(missing, use_mmproj=False)).mmproj is None


def test_absurd_headers_give_a_number() -> None:
    absurd = header(
        "gemma3",
        layers=2**60,
        heads=2**31,
        kv_heads=2**31,
        embedding_length=2**40,
        context_length=2**63,
        window=2**62,
        attention__sliding_window_pattern=2**31,
    )
    empty = header("", layers=0, heads=0, kv_heads=(), embedding_length=0, context_length=0)

    assert estimate(Model(absurd), LaunchArguments()).total > 2**60
    assert estimate(Model(empty), LaunchArguments()).total > 0
