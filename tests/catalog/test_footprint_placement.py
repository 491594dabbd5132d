from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_buffers import context_of
from llama_router.catalog.footprint_placement import CPU, Gpu, Needs, model_needs, usable_gpus
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
