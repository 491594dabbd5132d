from pathlib import Path

import pytest

from llama_router.catalog.footprint import Footprint, Machine, Model, estimate
from llama_router.catalog.footprint_arguments import parse_arguments
from llama_router.catalog.footprint_fit import (
    FitOutputError,
    Parts,
    estimated_parts,
    fit_arguments,
    parse_fit,
)
from llama_router.catalog.footprint_placement import Gpu
from llama_router.catalog.gguf_reader import GgufInfo
from tests.support.headers import header

MIB = 2**20
CARDS = Machine(gpus=(Gpu("cuda0", 2**40), Gpu("cuda1", 2**40)))


def options(text: str, info: GgufInfo | None = None, machine: Machine | None = None) -> str:
    parsed = parse_arguments(text.split())
    found = estimate(Model(info or header()), parsed, machine)
    return " ".join(fit_arguments(Path("/m.gguf"), parsed, found))


def test_it_is_asked_about_what_was_estimated() -> None:
    asked = options(
        "-c 8192 -np 2 -b 1024 -ub 256 -ctk q8_0 -ctv q4_0 -fa off -sm layer -mg 1 --swa-full -nkvo"
        " -ts 3,1 -dev CUDA0,CUDA1 -ot exps=CPU,blk.1=CUDA1 -ncmoe 2 -ncffn 1 --cache-ram 5"
        " --embeddings --host ::1",
        machine=CARDS,
    )

    assert asked == (
        "--model /m.gguf --fit-print on --ctx-size 8192 --parallel 2 --batch-size 1024"
        " --ubatch-size 256 --cache-type-k q8_0 --cache-type-v q4_0 --flash-attn off"
        " --split-mode layer --gpu-layers 3 --main-gpu 1 --swa-full --no-kv-offload"
        " --tensor-split 3.0,1.0 --device CUDA0,CUDA1 --override-tensor exps=CPU"
        " --override-tensor blk.1=CUDA1 --n-cpu-moe 2 --n-cpu-ffn 1"
    )


def test_slots_that_share_a_context_are_one_unless_each_has_a_state() -> None:
    recurrent = header("mamba", kv_heads=0, heads=0, ssm__inner_size=512, ssm__state_size=16)

    assert "--parallel 1 " in options("-c 512")
    assert "--parallel 4 " in options("-c 512", recurrent)
    assert "--parallel 3 " in options("-c 2048 -np 3")


def test_all_layers_are_not_more_than_there_can_be() -> None:
    assert "--n-cpu-moe 512" in options("--cpu-moe")
    assert options("-dev none").endswith("--device none")


def test_a_line_for_each_device_is_read_whatever_is_logged_before() -> None:
    printed = (
        "0.00.004.230 I llama_fit_params: printing estimated memory in MiB to stdout ...\n"
        "ggml_cuda_init: found 2 CUDA devices:\n"
        "CUDA0 17904 384 898 \n"
        "CUDA1 1 2 3 \r\n"
        "Host 58259 0 12 \n"
    )

    assert parse_fit(printed) == {
        "cuda0": Parts(17904 * MIB, 384 * MIB, 898 * MIB),
        "cuda1": Parts(MIB, 2 * MIB, 3 * MIB),
        "cpu": Parts(58259 * MIB, 0, 12 * MIB),
    }


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "-c 4096 -ngl 48\n",
        "CUDA0 1 2 3\n",
        "Host 1 2\n",
        "Host 1 2 -3\n",
        "Host 1 2 9999999999\n",
        "Host 1 2 3\nHost 1 2 3\n",
        "Host 1 2 3\nCUDA0 1 2 3\n",
        "Host \u0661 2 3\n",
        "".join(f"D{number} 1 2 3\n" for number in range(1000)),
        "x" * 100_000,
    ],
)
def test_anything_else_is_refused(printed: str) -> None:
    with pytest.raises(FitOutputError):
        parse_fit(printed)


def test_an_estimate_is_summed_up_in_its_terms() -> None:
    found: Footprint = estimate(Model(header()), parse_arguments(["-c", "512"]), CARDS)

    parts = estimated_parts(found)

    assert list(parts) == ["cpu", "cuda0", "cuda1"]
    assert sum(each.context for each in parts.values()) == 512 * 2 * 2 * 1024 * 2
    assert parts["cuda1"].compute == found.needs[2].compute > 0
