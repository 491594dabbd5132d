from pathlib import Path

import pytest

from llama_router.catalog.footprint_arguments import (
    ArgumentsError,
    LaunchArguments,
    parse_arguments,
)


def test_no_arguments_are_the_defaults_of_llama_server() -> None:
    assert parse_arguments([]) == LaunchArguments()
    assert LaunchArguments().ctx_size is None
    assert (LaunchArguments().batch_tokens, LaunchArguments().ubatch_tokens) == (2048, 512)


def test_a_whole_command_line_is_read() -> None:
    argv = (
        "/opt/llama-server --jinja --model /m/x.gguf --mmproj /m/p.gguf --alias x --host ::1"
        " --port 5 -c 8192 -np 2 --kv_unified -b 1024 -ub 256 -ctk q8_0 -ctv q4_0 -fa off"
        " --swa-full -ngl 12 -ts 3,1 -sm layer -nkvo -ncmoe 4 -fit off -cram 0 -ctxcp 8"
        " -md /m/d.gguf -ngld 0 --spec-draft-n-max 7 --no-mmproj-offload --embeddings"
    )

    found = parse_arguments(argv.split())

    assert found == LaunchArguments(
        ctx_size=8192,
        slots=2,
        kv_unified=True,
        batch_tokens=1024,
        ubatch_tokens=256,
        cache_type_k="q8_0",
        cache_type_v="q4_0",
        flash_attention="off",
        swa_full=True,
        gpu_layers=12,
        tensor_split=(3.0, 1.0),
        kv_offload=False,
        cpu_moe_layers=4,
        fit=False,
        cache_ram_mib=0,
        checkpoints=8,
        model=Path("/m/x.gguf"),
        mmproj=Path("/m/p.gguf"),
        mmproj_offload=False,
        draft=Path("/m/d.gguf"),
        draft_gpu_layers=0,
        draft_tokens=7,
        embedding=True,
    )


def test_the_last_of_several_wins_and_the_command_line_wins_over_the_environment() -> None:
    environment = {"LLAMA_ARG_CTX_SIZE": "1000", "LLAMA_ARG_SWA_FULL": "1"}

    assert parse_arguments([], environment).ctx_size == 1000
    assert parse_arguments(["-c", "2000", "-c", "3000"], environment).ctx_size == 3000
    assert parse_arguments([], environment).swa_full


@pytest.mark.parametrize(
    ("argv", "gpu_layers"),
    [
        ([], -1),
        (["-ngl", "auto"], -1),
        (["-ngl", "all"], -2),
        (["-ngl", "0"], 0),
        (["-ngl", "99"], 99),
    ],
)
def test_layers_can_be_words(argv: list[str], gpu_layers: int) -> None:
    assert parse_arguments(argv).gpu_layers == gpu_layers


def test_a_value_that_may_be_left_out_is_not_looked_for_in_the_next_option() -> None:
    found = parse_arguments(["-fa", "-c", "512", "--fit"])

    assert (found.flash_attention, found.ctx_size, found.fit) == ("on", 512, True)


def test_no_device_is_not_the_same_as_any() -> None:
    assert parse_arguments([]).devices is None
    assert parse_arguments(["-dev", "none"]).devices == ()
    assert parse_arguments(["-dev", "CUDA1,CUDA0"]).devices == ("CUDA1", "CUDA0")


@pytest.mark.parametrize(
    "argv",
    [
        ["-c"],
        ["-c", "many"],
        ["-c", "-1"],
        ["-b", "0"],
        ["-c", "9" * 12],
        ["-c", "9" * 5000],
        ["-ctk", "q3_k"],
        ["-ts", "a"],
    ],
)
def test_values_that_llama_server_refuses_are_refused(argv: list[str]) -> None:
    with pytest.raises(ArgumentsError, match=argv[0]):
        parse_arguments(argv)


def test_unknown_options_and_their_values_are_passed_over() -> None:
    assert parse_arguments(["--chat-template", "x", "stray", "--new-thing", "7"]) == (
        LaunchArguments()
    )


def test_of_overrides_all_count() -> None:
    argv = ["-ot", "exps=CPU", "-c", "512", "--override-tensor", r"blk\.1\..*=CUDA1,x=Vulkan0"]

    assert parse_arguments(argv, {"LLAMA_ARG_OVERRIDE_TENSOR": "y=CPU"}).overrides == (
        ("y", "CPU"),
        ("exps", "CPU"),
        (r"blk\.1\..*", "CUDA1"),
        ("x", "Vulkan0"),
    )
    for wrong in ("exps", "exps=CPU,more", "(=CPU"):
        with pytest.raises(ArgumentsError, match="-ot"):
            parse_arguments(["-ot", wrong])


@pytest.mark.parametrize(
    "argv", [["-ngl", "9"], ["-ts", "1,2"], ["-ot", "x=CPU"], ["-ncmoe", "1"], ["-sm", "row"]]
)
def test_what_is_placed_by_hand_is_known(argv: list[str]) -> None:
    assert parse_arguments(argv).is_placed
    assert not parse_arguments(["-ngl", "auto", "-c", "512", "-ncffn", "0"]).is_placed
