import pytest

from llama_router.catalog.footprint import Machine, Model, estimate, read_model
from llama_router.catalog.footprint_arguments import LaunchArguments, parse_arguments
from llama_router.catalog.footprint_placement import Gpu
from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.runtime.fitting import PROMPTS_VARIABLE, VARIABLE, fit, is_said, limit_prompts

GIB = 2**30
RAM_ONLY = Machine(ram_bytes=32 * GIB)
ONE_CARD = Machine(ram_bytes=32 * GIB, gpus=(Gpu("cuda0", 24 * GIB),))
TWO_CARDS = Machine(ram_bytes=32 * GIB, gpus=(Gpu("cuda0", 24 * GIB), Gpu("cuda1", 16 * GIB)))
DEFAULT = LaunchArguments()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose context of 128 Ki tokens takes 32 GiB."""
    path = tmp_path_factory.mktemp("models") / "a.gguf"
    shape = Shape(
        layers=32, embedding_length=1024, heads=8, kv_heads=8, key_length=256, context_length=131072
    )
    write_synthetic(path, shape)
    return read_model(path, DEFAULT)


def test_a_margin_of_the_users_own_is_seen() -> None:
    assert is_said(["llama-server", "-fitt", "2048"], {})
    assert is_said(["llama-server", "--fit-target", "2048"], {})
    assert is_said(["llama-server"], {VARIABLE: "2048"})
    assert not is_said(["llama-server", "--fit", "on"], {"LLAMA_ARG_FIT": "on"})


@pytest.mark.parametrize("budget_gib", [4, 8, 16, 24])
def test_of_ram_the_engine_is_told_to_leave_what_is_not_in_the_budget(
    large: Model, budget_gib: int
) -> None:
    found = fit(large, DEFAULT, RAM_ONLY, {"cpu": budget_gib * GIB}, may_tell=True)
    assert 0.6 * budget_gib * GIB < found.footprint.by_device["cpu"] <= 0.9 * budget_gib * GIB
    # What llama-server makes of it is what was estimated.
    (target,) = found.env.values()
    told = parse_arguments([], {VARIABLE: target})
    assert estimate(large, told, RAM_ONLY).ctx_tokens == found.footprint.ctx_tokens
    assert found.follows


def test_what_does_not_fit_gets_the_least_context(large: Model) -> None:
    found = fit(large, DEFAULT, RAM_ONLY, {"cpu": GIB}, may_tell=True)
    assert found.footprint.by_device["cpu"] > GIB
    assert found.footprint.ctx_tokens == DEFAULT.fit_ctx
    assert found.env == {VARIABLE: str(32 * 1024)}


@pytest.mark.parametrize(
    ("argv", "ram_gib", "limit_mib"),
    [
        ([], 16, 2048),
        ([], 64, None),
        ([], 0, None),
        (["--cache-ram", "-1"], 16, None),
        (["-cram", "0"], 16, None),
    ],
)
def test_prompts_are_limited_where_the_usual_limit_is_too_much(
    argv: list[str], ram_gib: int, limit_mib: int | None
) -> None:
    arguments, env = limit_prompts(parse_arguments(argv), ram_gib * GIB)
    assert env == ({} if limit_mib is None else {PROMPTS_VARIABLE: str(limit_mib)})
    assert arguments.usual_cache_ram_mib == (limit_mib or 8192)


@pytest.mark.parametrize(
    ("argv", "may_tell"), [(["-c", "65536"], True), (["--fit", "off"], True), ([], False)]
)
def test_nothing_is_told_where_it_is_not_asked_for(
    large: Model, argv: list[str], *, may_tell: bool
) -> None:
    found = fit(large, parse_arguments(argv), RAM_ONLY, {"cpu": 8 * GIB}, may_tell=may_tell)
    assert found.env == {}
    assert found.footprint.by_device["cpu"] > 8 * GIB


def test_a_card_is_filled_up_to_the_usual_margin_and_no_more_is_needed(large: Model) -> None:
    budgets = {"cpu": 28 * GIB, "cuda0": 23 * GIB}
    found = fit(large, DEFAULT, ONE_CARD, budgets, may_tell=True)
    assert found.env == {}
    assert found.within == {"cuda0"}


def test_of_cards_the_engine_is_told_to_leave_what_is_not_in_their_budgets(large: Model) -> None:
    budgets = {"cpu": 28 * GIB, "cuda0": 8 * GIB, "cuda1": 15 * GIB}
    found = fit(large, DEFAULT, TWO_CARDS, budgets, may_tell=True)
    assert found.env == {VARIABLE: f"{16 * 1024},1024"}
    assert found.within == {"cuda0", "cuda1"}
    assert found.footprint.by_device["cuda0"] < 8.5 * GIB
    # Who has chosen the margin himself, or what goes where, is not held to the budget.
    assert fit(large, DEFAULT, TWO_CARDS, budgets, may_tell=False).within == frozenset()
    placed = parse_arguments(["-ngl", "99"])
    assert fit(large, placed, TWO_CARDS, budgets, may_tell=True).within == frozenset()
