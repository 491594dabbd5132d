from llama_router.catalog.footprint import Machine, Model, estimate
from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_buffers import context_of
from llama_router.catalog.footprint_placement import (
    CPU,
    Gpu,
    Needs,
    model_needs,
    moved_tensors,
    usable_gpus,
)
from llama_router.catalog.gguf_tensors import TensorBytes
from tests.support.headers import header

CARDS = (Gpu("cuda0", 1000), Gpu("cuda1", 3000))
TENSORS = TensorBytes(
    blocks=(10, 20, 30, 40),
    experts=(100, 200, 300, 400),
    input=7,
    token_embeddings=7,
    output=5,
    output_weight=4,
)


def placed(arguments: str, gpus: tuple[Gpu, ...] = CARDS, gpu_layers: int = 5) -> Needs:
    parsed = parse_arguments(arguments.split())
    info = header(layers=4, tensors=TENSORS)
    return model_needs(info, parsed, context_of(info, parsed, 512), gpus, gpu_layers)


def weights(needs: Needs) -> dict[str, int]:
    return {device: purposes["weights"] for device, purposes in needs.items()}


def test_all_is_in_ram_without_graphics_cards() -> None:
    assert weights(placed("", gpus=(), gpu_layers=0)) == {CPU: TENSORS.total}


def test_layers_are_shared_out_by_free_memory_and_the_input_stays() -> None:
    # Five layers with the output's: shares of a quarter and three.
    assert weights(placed("")) == {CPU: 7, "cuda0": 330, "cuda1": 330 + 440 + 5}


def test_a_split_that_was_asked_for_wins() -> None:
    assert weights(placed("-ts 1,0")) == {CPU: 7, "cuda0": TENSORS.total - 7, "cuda1": 0}


def test_the_first_layers_stay_in_ram_when_not_all_fit() -> None:
    one = (Gpu("cuda0", 1),)

    assert weights(placed("", one, gpu_layers=2)) == {CPU: 7 + 110 + 220 + 330, "cuda0": 440 + 5}


def test_experts_can_stay_in_ram() -> None:
    one = (Gpu("cuda0", 1),)

    assert weights(placed("--cpu-moe", one)) == {CPU: 7 + 1000, "cuda0": 100 + 5}
    assert weights(placed("-ncmoe 1", one)) == {CPU: 7 + 100, "cuda0": 100 + 900 + 5}


def test_embeddings_that_are_the_output_too_take_a_copy_elsewhere() -> None:
    tied = TensorBytes(blocks=(10,), input=7, token_embeddings=7, output=1)
    info = header(layers=1, tensors=tied)
    arguments = LaunchArguments()
    context = context_of(info, arguments, 512)

    on_card = model_needs(info, arguments, context, CARDS[:1], 2)
    in_ram = model_needs(info, arguments, context, (), 0)

    assert weights(on_card) == {CPU: 7, "cuda0": 10 + 1 + 7}
    assert weights(in_ram) == {CPU: 18}


def test_the_cache_goes_with_its_layers_unless_it_is_kept_in_ram() -> None:
    one = (Gpu("cuda0", 1),)
    on_card, in_ram = placed("", one), placed("-nkvo", one)

    assert on_card[CPU]["kv_cache"] == 0
    assert in_ram[CPU]["kv_cache"] == on_card["cuda0"]["kv_cache"] > 0
    assert in_ram["cuda0"]["kv_cache"] == 0
    assert on_card["cuda0"]["compute"] > on_card[CPU]["compute"] > 0


def test_which_cards_the_arguments_allow() -> None:
    def names(arguments: str) -> list[str]:
        return [gpu.name for gpu in usable_gpus(CARDS, parse_arguments(arguments.split()))]

    assert names("") == ["cuda0", "cuda1"]
    assert names("-dev CUDA1,CUDA0") == ["cuda1", "cuda0"]
    assert names("-dev none") == []
    assert names("-ngl 0") == []
    assert names("-sm none -mg 1") == ["cuda1"]


def test_tensors_that_are_placed_by_name_lie_there_and_the_rest_stays() -> None:
    moved = TensorBytes(blocks=(1, 2, 3, 4), input=7, moved=(("cuda1", 500), ("cuda_host", 60)))
    info = header(layers=4, tensors=moved)
    arguments = LaunchArguments(tensor_split=(1.0, 0.0))
    context = context_of(info, arguments, 512)

    on_cards = weights(model_needs(info, arguments, context, CARDS, 5))
    in_ram = weights(model_needs(info, arguments, context, (), 0))

    # The embeddings' copy is that of the output, which the file has not.
    assert on_cards == {CPU: 7 + 60, "cuda0": 10, "cuda1": 500}
    assert in_ram == {CPU: moved.total}


def test_patterns_come_from_the_arguments() -> None:
    def places(arguments: str, name: str) -> list[str]:
        moved = moved_tensors(parse_arguments(arguments.split()))
        return [device for pattern, device in moved if pattern.search(name.encode())]

    chosen = "-ot blk.[01].*exps=CPU,attn=CUDA1 -ncffn 11"
    assert places(chosen, "blk.1.ffn_up_exps.weight") == ["cpu"]
    assert places(chosen, "blk.2.ffn_up_exps.weight") == []
    assert places(chosen, "blk.3.attn_q.weight") == ["cuda1"]
    assert places(chosen, "blk.10.ffn_gate.weight") == ["cpu"]
    assert places(chosen, "blk.11.ffn_gate.weight") == []
    assert places(chosen, "blk.1.ffn_gate_inp.weight") == []
    assert moved_tensors(LaunchArguments()) == ()


# A mixture of experts with 48 layers on two cards of 24 GiB, about 60 GiB in all.
MIB = 2**20
LARGE = header(
    "qwen3moe",
    layers=48,
    heads=32,
    kv_heads=4,
    key_length=128,
    value_length=128,
    embedding_length=2048,
    context_length=32768,
    experts=128,
    expert_used_count=8,
    expert_feed_forward_length=768,
    tensors=TensorBytes(
        blocks=(40 * MIB,) * 48,
        experts=(1200 * MIB,) * 48,
        input=600 * MIB,
        token_embeddings=600 * MIB,
        output=600 * MIB,
        output_weight=600 * MIB,
    ),
)
TWO = Machine(
    ram_bytes=128 * 1024 * MIB,
    gpus=(Gpu("cuda0", 24 * 1024 * MIB), Gpu("cuda1", 24 * 1024 * MIB)),
)


def on_two_cards(arguments: str) -> dict[str, int]:
    found = estimate(Model(LARGE), parse_arguments(["-c", "32768", *arguments.split()]), TWO)
    return {device: size_bytes // MIB for device, size_bytes in found.by_device.items()}


def test_with_two_cards_each_gets_what_it_has_room_for() -> None:
    found = on_two_cards("")

    margin = 1024
    assert 20_000 < found["cuda0"] <= 24 * 1024 - margin + 300
    assert 20_000 < found["cuda1"] <= 24 * 1024 - margin + 300
    assert found[CPU] > LARGE.tensors.total // MIB - 2 * 24 * 1024


def test_so_many_layers_are_halved_between_two_cards() -> None:
    found = on_two_cards("-ngl 20")
    one_layer = 1240 + 64  # weights and 32768 tokens of 512 keys and values

    assert abs(found["cuda0"] - found["cuda1"]) < 2 * one_layer
    assert found["cuda0"] + found["cuda1"] > 19 * one_layer + 600
    assert found[CPU] > 29 * one_layer


def test_what_does_not_fit_is_said_as_it_was_asked_for() -> None:
    # With all layers asked for nothing is made to fit: the engine would run out of memory.
    assert min(on_two_cards("-ngl 99")[card] for card in ("cuda0", "cuda1")) > 24 * 1024


def test_experts_in_ram_leave_the_cards_with_the_rest() -> None:
    found = on_two_cards("-ngl 99 --cpu-moe")
    part = on_two_cards("-ngl 99 -ncmoe 24")

    assert found["cuda0"] < 4 * 1024
    assert found["cuda1"] < 4 * 1024
    assert found[CPU] > 48 * 1200
    # The first half of the layers, and one more, is on the first card.
    assert part["cuda0"] < 5 * 1024
    assert part["cuda1"] > 24 * 1200
    # What is placed by hand is not placed anew by --fit.
    assert on_two_cards("-ncmoe 24") == part


def test_shares_of_two_cards_are_kept() -> None:
    found = on_two_cards("-ngl 99 --cpu-moe -ts 3,1")
    layer = 40 + 64

    # 37 layers on the first; 11 and the output's on the second.
    assert 24 * layer < found["cuda0"] - (found["cuda1"] - 600) < 28 * layer
    assert on_two_cards("-ngl 99 --cpu-moe -sm none -mg 1").keys() == {CPU, "cuda1"}
