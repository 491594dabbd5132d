"""A switch when it is worth more than it costs, and for everybody within a bound."""

import math
from typing import Final

from llama_router.core import reasons
from llama_router.core.commands import RejectKind
from llama_router.core.eviction import cheapest
from llama_router.core.ledger import Ledger
from llama_router.core.memory import lacks
from llama_router.core.model import Model
from llama_router.core.outlook import Outlook
from llama_router.core.policies.base import Claim, Refuse, Step, Wake
from llama_router.core.states import State

CONSIDERED: Final = 8
"""So many of those who wait are weighed at a time: a bound on the work, not on who is served."""

OVERDUE_CONSIDERED: Final = 32
"""So many when all of the oldest are overdue: they may wait for what the others do not need."""

_ROUNDING_S: Final = 1e-6  # a timer set for the moment when it is worth it must find it so

# How readily a model goes.
_IDLE, _USED, _PROTECTED, _NEVER = range(4)


class BenefitOrder:
    """Requests for loaded models are served at once, until a switch is worth its cost.

    Who waits for a model that is not loaded gets it at once when it fits, by itself or in place of
    models that nobody uses and that are past their minimum residency. Models in use go for it when
    the time that its waiters have waited, added up, exceeds what the swap costs those who use them
    (the loads, for each of them), or when its rank is higher; a model never goes early for a lower
    rank. And whatever it costs, they go, after what they are doing, as soon as somebody has waited
    for ``max_wait_s``: so nobody waits longer than that, one drain and one load, or as many drains
    and loads as there are others who have waited as long for memory that one of them fills. What is
    being loaded for somebody is loaded and used first, but nobody younger gets in the way any more.

    Of the models that could go, the set goes that frees enough at the least loss, see ``eviction``.
    """

    serves_at_once = True
    serves_load = True

    def plan(self, ledger: Ledger) -> list[Step]:
        """See :class:`~llama_router.core.policies.base.Policy`."""
        candidates = self._candidates(ledger)
        if not candidates:
            return []
        steps: list[Step] = []
        weighing = _Weighing(ledger)
        for model in candidates:
            step = weighing.weigh(model)
            if step is not None:
                steps.append(step)
        if weighing.wake_at < math.inf:
            steps.append(Wake(weighing.wake_at))
        return steps

    @staticmethod
    def _candidates(ledger: Ledger) -> list[Model]:
        """Return who is to be weighed: the overdue by age, then the others by rank and age."""
        oldest = ledger.line.first(CONSIDERED, by_rank=False)
        if len(oldest) == CONSIDERED and _overdue_at(ledger, oldest[-1]) <= ledger.now:
            oldest = ledger.line.first(OVERDUE_CONSIDERED, by_rank=False)
        overdue = [model for model in oldest if _overdue_at(ledger, model) <= ledger.now]
        if len(oldest) < CONSIDERED:
            others = sorted(oldest, key=lambda model: -model.rank)  # they are all there are
        else:
            others = ledger.line.first(CONSIDERED, by_rank=True)
            # The oldest who is not overdue yet must not be forgotten when it gets to be.
            others += oldest[len(overdue) :][:1]
            # Nor is a newcomer who may need nothing of what they wait for.
            newest = next(reversed(ledger.waiting.values()))
            if newest.state is State.UNLOADED and newest.name not in ledger.claims:
                others.append(newest)
        return list({model.name: model for model in [*overdue, *others]}.values())


def _overdue_at(ledger: Ledger, model: Model) -> float:
    return model.waiting.head.arrived_at + ledger.settings.max_wait_s


def _rank_in_use(victim: Model) -> int:
    """Return the highest rank of who uses it or waits for it; who comes next may be interactive."""
    in_use = max((request.rank for request in victim.in_flight.values()), default=1)
    return max(victim.rank, 2 * victim.spec.priority + max(in_use, 1))


class _Weighing:
    """One look at the whole; claims that it finds worth it are booked for those who follow."""

    def __init__(self, ledger: Ledger) -> None:
        self.wake_at = math.inf
        self._ledger = ledger
        self._rules = ledger.coexistence
        self._outlook = Outlook(ledger)
        self._claims = list(ledger.claims.values())
        self._put_off: dict[tuple[str, tuple[str, ...]], Model] = {}
        """Who is overdue but has to wait for a load or a claim that came before: of those that
        the rules treat alike and that want the same devices one stands for all."""
        self._going = dict.fromkeys(ledger.going)
        self._outlaws: dict[str, list[Model]] = {}
        self._pools: list[list[Model]] = []
        self._protected_until = math.inf
        self._can_be_free: dict[str, int] | None = None
        self._can_be_places = 0

    def weigh(self, model: Model) -> Step | None:
        """Return what to do for ``model`` now, if anything."""
        overdue_at = _overdue_at(self._ledger, model)
        is_overdue = overdue_at <= self._ledger.now
        step = None
        if not any(self._is_in_the_way(model, elder) for elder in self._put_off.values()):
            step = self._weigh_fairly(model, overdue_at, is_overdue=is_overdue)
        if step is None and is_overdue:
            devices = tuple(part.device for part in model.memory)
            self._put_off.setdefault((self._rules.key_of(model), devices), model)
        return step

    def _weigh_fairly(self, model: Model, overdue_at: float, *, is_overdue: bool) -> Step | None:
        if not self._rules.may_join(model, self._claims):
            return None
        outlaws = self._outlaws_of(model)
        if not outlaws and self._outlook.places > 0 and not self._outlook.shortfall(model, []):
            return self._claim(model, (), "there is room")
        if not is_overdue:
            self._wake(overdue_at)
        return self._weigh_swap(model, outlaws, is_overdue=is_overdue)

    def _is_in_the_way(self, model: Model, elder: Model) -> bool:
        """Return whether ``elder`` would have to wait for it that ``model`` was loaded."""
        running, going, claims = self._ledger.running, self._going, self._claims
        if self._ledger.settings.max_loaded:
            return True
        if self._rules.would_delay(model, elder, running, going, claims):
            return True
        wanted = {part.device for part in elder.memory if part.device in self._outlook.free}
        return any(part.device in wanted for part in model.memory)

    def _outlaws_of(self, model: Model) -> list[Model]:
        """Return who has to go by the rules, however much memory there is."""
        rules, running = self._rules, self._ledger.running
        key = rules.key_of(model)
        outlaws = self._outlaws.get(key)
        if outlaws is None:
            outlaws = rules.outlaws(model, running, self._going, self._claims, self._readiness)
            self._outlaws[key] = outlaws
        return outlaws

    def _is_kept_out(self, model: Model) -> bool:
        """Return whether a pinned model keeps it out, and not only as long as there are claims."""
        running = self._ledger.running
        outlaws = self._rules.outlaws(model, running, self._going, (), self._readiness)
        return any(outlaw.spec.pinned for outlaw in outlaws)

    def _weigh_swap(self, model: Model, outlaws: list[Model], *, is_overdue: bool) -> Step | None:
        for outlaw in outlaws:
            if outlaw.spec.pinned:
                if not self._is_kept_out(model):
                    return None
                why = self._rules.why(model, outlaw)
                return self._refuse(model, f" beside a pinned model {why}")
        least = max((self._readiness(outlaw) for outlaw in outlaws), default=_IDLE)
        for readiness in range(least, _NEVER):
            if readiness > _IDLE and self._will_never_fit(model):
                return self._refuse(model, " beside the models that have to stay")
            if not is_overdue and not self._may_be_worth(model, readiness):
                return None
            victims = self._victims(model, outlaws, readiness)
            if victims is None:
                continue
            if is_overdue:
                waited = f"somebody has waited for {self._ledger.settings.max_wait_s:g} s"
                return self._claim(model, victims, waited)
            reason = self._worth(model, victims, readiness)
            return self._claim(model, victims, reason) if reason else None
        return None

    def _may_be_worth(self, model: Model, readiness: int) -> bool:
        """Return False when looking for victims would be in vain; then ask for another look."""
        if readiness == _IDLE:
            return True
        self._candidates(readiness)
        self._wake(self._protected_until)
        if readiness == _PROTECTED:
            return False
        if model.rank <= self._lowest_rank():
            cheap_s = model.load_cost_s
            waited_s = model.waiting.waited_s(self._ledger.now)
            if waited_s < cheap_s - _ROUNDING_S:
                self._wake_when_waited(model, cheap_s - waited_s)
                return False
        return True

    def _lowest_rank(self) -> int:
        return min((2 * each.spec.priority + 1 for each in self._candidates(_USED)), default=0)

    def _victims(
        self, model: Model, outlaws: list[Model], readiness: int
    ) -> tuple[Model, ...] | None:
        """Return who goes when models of this readiness may, or None when that is not enough."""
        places = 1 - self._outlook.places - len(outlaws)
        shortfall = self._outlook.shortfall(model, outlaws)
        if not shortfall and places <= 0:
            return tuple(outlaws)
        names = {outlaw.name for outlaw in outlaws}
        candidates = self._candidates(readiness)
        if names:
            candidates = [each for each in candidates if each.name not in names]
        chosen = cheapest(candidates, shortfall, places)
        if chosen is None:
            return None
        return (*outlaws, *chosen)

    def _candidates(self, readiness: int) -> list[Model]:
        """Return who may go at this readiness."""
        if not self._pools:
            self._pools = self._sort_by_readiness()
        if readiness == _IDLE:
            return self._pools[_IDLE]
        return [model for pool in self._pools[: readiness + 1] for model in pool]

    def _sort_by_readiness(self) -> list[list[Model]]:
        ledger, going, waiting = self._ledger, self._going, self._ledger.waiting
        now, usual_s, ready = ledger.now, ledger.settings.min_residency_s, State.READY
        pools: list[list[Model]] = [[], [], [], []]
        idle, used = pools[_IDLE], pools[_USED]
        for name, model in ledger.running.items():
            spec = model.spec
            if name in going or spec.pinned:
                continue
            if model.state is not ready:
                pools[self._readiness(model)].append(model)
                continue
            # As _readiness has it; there may be hundreds, and most are idle.
            own_s = spec.min_residency_s
            until = model.ready_since + (usual_s if own_s is None else own_s)
            if now < until:
                pools[_PROTECTED].append(model)
                self._protected_until = min(self._protected_until, until)
            elif model.in_flight or name in waiting:
                used.append(model)
            else:
                idle.append(model)
        return pools

    def _readiness(self, model: Model) -> int:
        if model.state is State.STARTING:
            return _NEVER if model.waiting else _IDLE
        if self._ledger.now < self._ledger.min_residency_end(model):
            return _PROTECTED
        return _USED if model.in_flight or model.waiting else _IDLE

    def _worth(self, model: Model, victims: tuple[Model, ...], readiness: int) -> str:
        """Return why the swap is worth it, or "" if it is not, yet."""
        if readiness == _IDLE:
            return "nobody uses it" if victims else "there is room"
        rank = model.rank
        highest = max(_rank_in_use(victim) for victim in victims)
        if rank != highest:
            return "its priority is higher" if rank > highest else ""
        users = sum(len(victim.in_flight) + len(victim.waiting) for victim in victims)
        loads_s = model.load_cost_s + sum(victim.load_cost_s for victim in victims)
        cost_s = loads_s * max(1, users)
        waited_s = model.waiting.waited_s(self._ledger.now)
        if waited_s >= cost_s - _ROUNDING_S:
            return f"{waited_s:.1f} s waited in all exceed {cost_s:.1f} s that the swap costs"
        self._wake_when_waited(model, cost_s - waited_s)
        return ""

    def _will_never_fit(self, model: Model) -> bool:
        """Return whether not even all who may go at some time leave enough."""
        if self._can_be_free is None:
            self._can_be_free, self._can_be_places = self._ledger.room_at_last()
        return self._can_be_places <= 0 or lacks(self._can_be_free, model.memory)

    def _claim(self, model: Model, victims: tuple[Model, ...], reason: str) -> Claim:
        self._outlook.book(model, victims)
        self._claims.append(model)
        if victims or self._rules.has_rules:
            self._outlaws.clear()
        for victim in victims:
            self._going[victim.name] = None
            for pool in self._pools:
                if victim in pool:
                    pool.remove(victim)
        return Claim(model, victims, reason)

    @staticmethod
    def _refuse(model: Model, beside: str) -> Refuse:
        return Refuse(model, RejectKind.DOES_NOT_FIT, reasons.does_not_fit(model, beside))

    def _wake_when_waited(self, model: Model, more_s: float) -> None:
        """Ask for a look when those who wait will have waited so much more, added up."""
        # Never for this instant again, however coarse the clock's numbers are: it would not end.
        self._wake(self._ledger.now + max(more_s / len(model.waiting), _ROUNDING_S))

    def _wake(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)
