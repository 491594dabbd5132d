import time
from random import Random

import pytest

from llama_router.core import events as ev
from llama_router.core.coexistence import Combinations, Groups, coexistence_of
from llama_router.core.model import Model
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings, GroupRule
from tests.core.playbook import Stage, specs
from tests.support.loop_guard import slowness

POLICIES = pytest.mark.parametrize("make", [BenefitOrder, ArrivalOrder])


class Desk:
    """A stage where loads, answers and stops take no time, and everybody is idle at once."""

    def __init__(self, models: str, settings: CoreSettings, policy: Policy) -> None:
        self.stage = Stage(specs(models), policy, settings)
        self.number = 0

    def ask(self, name: str) -> list[str]:
        """Return who runs after a request for ``name`` was answered."""
        self.number += 1
        self.stage.now += 100.0
        self.stage.handle(ev.RequestArrived(self.number, name))
        for _ in range(20):
            self._work()
        self.stage.handle(ev.RequestFinished(self.number))
        return self.running()

    def running(self) -> list[str]:
        return sorted(self.stage.core.ledger.running)

    def _work(self) -> None:
        for model in list(self.stage.core.ledger.running.values()):
            if model.state.value == "starting":
                self.stage.handle(ev.EngineReady(model.name, model.generation))
            elif model.state.value == "stopping":
                self.stage.handle(ev.EngineReaped(model.name, model.generation))


def groups(*rules: GroupRule) -> CoreSettings:
    return CoreSettings(groups=rules, min_residency_s=0.0)


def sets(text: str, **costs: float) -> CoreSettings:
    combinations = tuple(frozenset(word) for word in text.split())
    return CoreSettings(combinations=combinations, eviction_costs=costs)


@POLICIES
def test_a_swap_group_runs_one_of_its_models(make: type[Policy]) -> None:
    desk = Desk("a/g b/g c/h", groups(GroupRule("g", swap=True)), make())
    assert [desk.ask(name) for name in "abcb"] == [["a"], ["b"], ["c"], ["b"]]


@POLICIES
def test_a_group_that_is_not_exclusive_loads_beside_whatever_is_there(make: type[Policy]) -> None:
    rules = groups(GroupRule("g", exclusive=False))
    desk = Desk("a/g b/h c/g", rules, make())
    assert desk.ask("b") == ["b"]
    assert desk.ask("a") == ["a", "b"]
    assert desk.ask("c") == ["a", "b", "c"]
    assert desk.ask("b") == ["a", "b", "c"]


@POLICIES
def test_what_is_exclusive_still_sends_those_away_who_are_not(make: type[Policy]) -> None:
    desk = Desk("a/g b/h", groups(GroupRule("g", exclusive=False)), make())
    assert [desk.ask(name) for name in "ab"] == [["a"], ["b"]]


@POLICIES
def test_a_persistent_group_stays(make: type[Policy]) -> None:
    desk = Desk("a/g b/h c/i", groups(GroupRule("g", persistent=True, exclusive=False)), make())
    assert [desk.ask(name) for name in "abca"] == [["a"], ["a", "b"], ["a", "c"], ["a", "c"]]


@POLICIES
def test_a_persistent_group_that_swaps_changes_its_own_models(make: type[Policy]) -> None:
    rule = GroupRule("g", swap=True, exclusive=False, persistent=True)
    desk = Desk("a/g b/g c/h", groups(rule), make())
    assert [desk.ask(name) for name in "acb"] == [["a"], ["a", "c"], ["b", "c"]]


@POLICIES
def test_those_who_run_are_of_one_combination(make: type[Policy]) -> None:
    desk = Desk("a b c d", sets("abc ad"), make())
    assert [desk.ask(name) for name in "abc"] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert desk.ask("d") == ["a", "d"]
    assert desk.ask("b") == ["a", "b"]


@POLICIES
def test_a_model_of_no_combination_runs_alone(make: type[Policy]) -> None:
    desk = Desk("a b x", sets("ab"), make())
    assert [desk.ask(name) for name in "abxa"] == [["a"], ["a", "b"], ["x"], ["a"]]


@POLICIES
def test_a_combination_of_nobody_lets_each_run_alone(make: type[Policy]) -> None:
    desk = Desk("a/g b/g", CoreSettings(combinations=(frozenset(),)), make())
    assert [desk.ask(name) for name in "ab"] == [["a"], ["b"]]


@POLICIES
def test_two_may_each_run_beside_a_third_and_not_together(make: type[Policy]) -> None:
    desk = Desk("a b c", sets("ab bc ac"), make())
    assert [desk.ask(name) for name in "ab"] == [["a"], ["a", "b"]]
    assert len(desk.ask("c")) == 2


@POLICIES
def test_the_cheapest_go(make: type[Policy]) -> None:
    desk = Desk("a b c", sets("ab ac bc", a=5.0), make())
    desk.ask("a")
    desk.ask("b")
    assert desk.ask("c") == ["a", "c"]


@POLICIES
def test_a_pinned_model_decides_which_combination_it_is(make: type[Policy]) -> None:
    stage = Desk("a b c", sets("ab bc ac", a=0.0), make())
    stage.ask("a")
    stage.ask("b")
    pinned = ev.ModelSpec("a", "a", pinned=True)
    stage.stage.handle(ev.ModelsPatched((pinned,)))
    assert stage.ask("c") == ["a", "c"]


def test_a_pinned_model_of_no_common_combination_keeps_others_out() -> None:
    settings = sets("ab c")
    stage = Stage([ev.ModelSpec("a", "", pinned=True), *specs("b c")], BenefitOrder(), settings)
    stage.handle(ev.LoadRequested(1, "a"))
    stage.handle(ev.EngineReady("a", 1))
    stage.handle(ev.RequestArrived(2, "c"))
    rejects = stage.auditor.rejects
    assert [reject.kind.value for reject in rejects] == ["does_not_fit"]
    assert "beside a pinned model of no common combination" in rejects[0].reason


def test_a_load_that_came_first_does_not_make_a_model_impossible() -> None:
    settings = sets("pa pc ac")
    pinned = ev.ModelSpec("p", "", pinned=True)
    stage = Stage([pinned, *specs("a c")], BenefitOrder(), settings)
    stage.handle(ev.LoadRequested(1, "p"))
    stage.handle(ev.EngineReady("p", 1))
    stage.handle(ev.RequestArrived(2, "c"))
    stage.handle(ev.RequestArrived(3, "a"))
    assert stage.auditor.rejects == []
    stage.handle(ev.EngineReady("c", 2))
    stage.handle(ev.RequestFinished(2))
    stage.handle(ev.EngineReaped("c", 2))
    assert sorted(stage.core.ledger.running) == ["a", "p"]


def test_memory_restricts_a_combination_further() -> None:
    gpu = (ev.DeviceBytes("gpu", 6),)
    models = [ev.ModelSpec(name, "", memory=gpu) for name in "ab"]
    settings = CoreSettings(
        budgets=(ev.DeviceBytes("gpu", 10),), combinations=(frozenset("ab"),), min_residency_s=0.0
    )
    stage = Stage(models, BenefitOrder(), settings)
    stage.handle(ev.RequestArrived(1, "a"))
    stage.handle(ev.EngineReady("a", 1))
    stage.handle(ev.RequestFinished(1))
    stage.handle(ev.RequestArrived(2, "b"))
    assert stage.core.view("a").state == "unloading"


@POLICIES
def test_other_rules_stop_nobody_but_hold_for_the_next_load(make: type[Policy]) -> None:
    desk = Desk("a b c", sets("abc"), make())
    for name in "ab":
        desk.ask(name)
    desk.stage.handle(ev.SettingsChanged(sets("ac b")))
    assert desk.running() == ["a", "b"]
    assert desk.ask("c") == ["a", "c"]


def test_a_plan_says_who_goes_for_which_rule() -> None:
    desk = Desk("a/g b/g c/h", groups(GroupRule("g", swap=True)), BenefitOrder())
    desk.ask("a")
    reasons = [desk.stage.core.plan(name, 1e6).victims[0].reason for name in "bc"]
    assert "of the same group, which runs one model at a time" in reasons[0]
    assert "of another group" in reasons[1]
    desk.stage.handle(ev.SettingsChanged(sets("ab c")))
    plan = desk.stage.core.plan("c", 1e6)
    assert [victim.model for victim in plan.victims] == ["a"]
    assert "of no common combination" in plan.victims[0].reason
    assert desk.stage.core.plan("b", 1e6).victims == ()


def test_eviction_costs_count_where_memory_is_short_as_well() -> None:
    gpu = (ev.DeviceBytes("gpu", 5),)
    models = [ev.ModelSpec(name, "", memory=gpu) for name in "abc"]
    budgets = (ev.DeviceBytes("gpu", 10),)
    for dear, gone in (("a", "b"), ("b", "a")):
        settings = CoreSettings(budgets=budgets, eviction_costs={dear: 9.0}, min_residency_s=0.0)
        stage = Stage(models, BenefitOrder(), settings)
        for number, name in enumerate("ab", 1):
            stage.handle(ev.RequestArrived(number, name))
            stage.handle(ev.EngineReady(name, number))
            stage.handle(ev.RequestFinished(number))
        stage.handle(ev.RequestArrived(3, "c"))
        assert stage.core.view(gone).state == "unloading"


def test_without_rules_groups_exclude_each_other() -> None:
    rules = coexistence_of(CoreSettings())
    one, twin, other = (Model(spec) for spec in specs("a/g b/g c/h"))
    assert isinstance(rules, Groups)
    assert not rules.has_rules
    assert rules.may_start(one, [twin])
    assert not rules.may_start(one, [other])
    assert not rules.may_join(one, [other])


def listening(**addresses: str) -> list[ev.ModelSpec]:
    """Models of no group that all listen somewhere, or nowhere in particular."""
    return [ev.ModelSpec(name, "", address=where) for name, where in addresses.items()]


RULES = pytest.mark.parametrize(
    "settings",
    [CoreSettings(), groups(GroupRule("", exclusive=False)), sets("abcd")],
    ids=["no rules", "groups", "combinations"],
)


@POLICIES
@RULES
def test_no_two_engines_of_one_address_run_at_a_time(
    make: type[Policy], settings: CoreSettings
) -> None:
    desk = Desk("", settings, make())
    models = listening(a="127.0.0.1:9000", b="127.0.0.1:9000", c="127.0.0.1:9001", d="")
    desk.stage.handle(ev.ModelsPatched(tuple(models)))
    assert [desk.ask(name) for name in "acd"] == [["a"], ["a", "c"], ["a", "c", "d"]]
    why = desk.stage.core.plan("b", 1e6).victims
    assert [victim.model for victim in why] == ["a"]
    assert "listens on the same address" in why[0].reason
    assert desk.ask("b") == ["b", "c", "d"]
    assert desk.ask("a") == ["a", "c", "d"]


@POLICIES
@RULES
def test_two_that_wait_for_one_address_are_not_started_together(
    make: type[Policy], settings: CoreSettings
) -> None:
    stage = Stage(listening(a="x:1", b="x:1", c=""), make(), settings)
    stage.handle(ev.RequestArrived(1, "c"))
    stage.handle(ev.RequestArrived(2, "a"))
    stage.handle(ev.RequestArrived(3, "b"))
    states = {name: view.state for name, view in stage.views().items()}
    assert states == {"c": "loading", "a": "loading", "b": "unloaded"}


def test_an_engine_keeps_the_address_that_it_was_started_with() -> None:
    stage = Stage(listening(a="x:1", b=""), BenefitOrder())
    stage.handle(ev.RequestArrived(1, "a"))
    stage.handle(ev.EngineReady("a", 1))
    moved = ev.ModelSpec("a", "", "2", address="x:2")
    stage.handle(ev.ModelsPatched((moved, ev.ModelSpec("b", "", "2", address="x:1"))))
    stage.handle(ev.RequestArrived(2, "b"))  # a still answers its request
    assert stage.core.view("b").state == "unloaded"
    stage.handle(ev.RequestFinished(1))
    stage.handle(ev.EngineReaped("a", 1))
    assert stage.core.view("b").state == "loading"
    stage.handle(ev.RequestArrived(3, "a"))
    assert stage.core.view("a").state == "loading"


@pytest.mark.parametrize("seed", range(20))
def test_who_goes_is_what_trying_all_combinations_says(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - drawn cases, no secret
    names = "abcdefgh"
    combinations = tuple(
        frozenset(name for name in names if random.random() < 0.5)
        for _ in range(random.randint(1, 9))
    )
    costs = {name: random.choice((0.0, 1.0, 1.0, 3.0)) for name in names}
    models = {name: Model(ev.ModelSpec(name, "", pinned=random.random() < 0.1)) for name in names}
    for model in models.values():
        model.uses = random.random()
        model.eviction_cost = costs[model.name]
    running = {name: models[name] for name in names[1:] if random.random() < 0.7}
    going = {name for name in running if random.random() < 0.2}
    ready = {name: random.randrange(3) for name in names}
    rules = Combinations(combinations)

    def price(victims: list[Model]) -> tuple[bool, float, int, float, int]:
        return (
            any(victim.spec.pinned for victim in victims),
            sum(costs[victim.name] for victim in victims),
            max((ready[victim.name] for victim in victims), default=0),
            round(sum(victim.uses * costs[victim.name] for victim in victims), 9),
            len(victims),
        )

    chosen = rules.outlaws(models["a"], running, going, [], lambda model: ready[model.name])
    staying = [model for name, model in running.items() if name not in going]
    ways = [[m for m in staying if m.name not in each] for each in combinations if "a" in each]
    best = min(map(price, ways or [staying]))
    assert price(chosen) == best
    assert rules.may_start(models["a"], [m for m in staying if m not in chosen])


@pytest.mark.parametrize("size", [2, 5, 20])
def test_ten_thousand_combinations_hold_up_nothing(size: int) -> None:
    random = Random(size)  # noqa: S311 - drawn cases, no secret
    names = [f"m{number}" for number in range(150)]
    drawn: dict[frozenset[str], None] = {}
    while len(drawn) < 10_000:  # m0 is in half of them
        drawn[frozenset((names[len(drawn) % 2], *random.sample(names[2:], size)))] = None
    rules = Combinations(tuple(drawn))
    models = {name: Model(ev.ModelSpec(name, "")) for name in names}
    first = next(iter(drawn))
    running = {name: models[name] for name in sorted(first - {"m0"})}

    def ask(name: str) -> float:
        started = time.process_time()
        rules.outlaws(models[name], running, {}, [], lambda _: 0)
        rules.may_start(models[name], running.values())
        rules.would_delay(models[name], models["m2"], running, {}, [])
        return (time.process_time() - started) / slowness()

    slowest = max(min(ask(name) for _ in range(5)) for name in names if name not in running)
    assert slowest < 0.002, f"seed {size}"


def test_combinations_that_were_worked_out_aside_cost_the_core_nothing() -> None:
    names = [f"m{number}" for number in range(150)]
    pairs = tuple(frozenset((one, two)) for one in names for two in names[:70] if one != two)
    settings = CoreSettings(combinations=pairs)
    coexistence_of(settings)
    stage = Stage([ev.ModelSpec(name, "") for name in names], BenefitOrder())

    def change() -> float:
        started = time.process_time()
        stage.core.handle(ev.SettingsChanged(settings), 0.0)
        return (time.process_time() - started) / slowness()

    assert min(change() for _ in range(5)) < 0.002
