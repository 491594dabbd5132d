import random

from llama_router.simulator.faults import DEVICES, FAULTS, draw_models, draw_plan


def plans(count: int) -> list[dict[str, float]]:
    return [draw_plan(random.Random(seed)).rates for seed in range(count)]  # noqa: S311


def test_each_fault_is_absent_in_some_walks_and_present_in_others() -> None:
    drawn = plans(60)
    for fault in FAULTS:
        present = sum(rates[fault] > 0 for rates in drawn)
        assert 10 < present < 50, fault


def test_the_same_seed_draws_the_same_plan() -> None:
    assert draw_plan(random.Random(3)) == draw_plan(random.Random(3))  # noqa: S311


def test_models_differ_in_what_matters() -> None:
    rng = random.Random(1)  # noqa: S311
    models = [model for _ in range(50) for model in draw_models(rng)]
    assert {model.pinned for model in models} == {True, False}
    assert {part.device for model in models for part in model.memory} == {*DEVICES}
    assert any(not model.memory for model in models)
    assert {model.group for model in models} >= {"", "g"}


def test_there_is_always_a_model() -> None:
    assert all(draw_models(random.Random(seed)) for seed in range(200))  # noqa: S311


def test_walks_have_rules_for_groups_combinations_or_none() -> None:
    drawn = [draw_plan(random.Random(seed)).settings for seed in range(60)]  # noqa: S311
    with_groups = [each for each in drawn if each.groups]
    with_combinations = [each for each in drawn if each.combinations]
    assert len(with_groups) > 5
    assert len(with_combinations) > 5
    assert len(with_groups) + len(with_combinations) < 50
    assert any(rule.swap and not rule.exclusive for each in with_groups for rule in each.groups)
    assert any(each.eviction_costs for each in with_combinations)
