"""What a request would cause: whether its model fits, who would go for it, how long it takes."""

import msgspec

from llama_router.core.events import DeviceBytes
from llama_router.core.eviction import cheapest
from llama_router.core.ledger import Ledger
from llama_router.core.memory import lacks
from llama_router.core.model import Model
from llama_router.core.outlook import Outlook
from llama_router.core.states import PUBLIC_NAMES, State


class Victim(msgspec.Struct, frozen=True):
    """A model that would go, with the reason for people and how many requests it answers now."""

    model: str
    reason: str
    in_flight: int


class Plan(msgspec.Struct, frozen=True):
    """What would happen. ``state`` as in ``ModelView``.

    ``fits``: whether the model can be loaded at all, beside what has to stay. ``wait_s``: how long
    a request that arrived now would wait, about; what busy models need to finish is not in it but
    for the longest that they may be kept (``max_wait_s``). None: it would be refused.
    ``reason``: the whole in one sentence. ``needs``: what its engine is expected to need on each
    device, nothing when that is not known; ``free``: what is free on each device that has a budget
    (negative: overbooked).
    """

    model: str
    state: str
    fits: bool
    victims: tuple[Victim, ...]
    wait_s: float | None
    reason: str
    needs: tuple[DeviceBytes, ...] = ()
    free: tuple[DeviceBytes, ...] = ()


def preview(ledger: Ledger, model: Model, now: float) -> Plan:
    """Return what a request for ``model`` would cause at ``now``; nothing is changed."""

    def plan(reason: str, wait_s: float | None, *victims: Victim, fits: bool = True) -> Plan:
        state = PUBLIC_NAMES[model.state]
        return Plan(model.name, state, fits, victims, wait_s, reason, model.memory, free)

    free = tuple(DeviceBytes(device, size) for device, size in ledger.memory.free().items())
    load_s = model.load_cost_s
    if model.state is State.READY:
        if model.closing:
            return plan(f"it makes room for '{model.closing}' and is loaded again later", load_s)
        if not model.capacity:
            return plan("it is loaded, but has all the requests it can take", 0.0)
        return plan("it is loaded", 0.0)
    if model.state is State.STARTING:
        left = load_s * (1.0 - (model.fraction or 0.0))
        return plan("it is being loaded", left)
    may_be_tried = model.state is State.FAILED and model.crashes.retry_at <= now
    if model.state is State.STUCK or (model.is_set_back and not may_be_tried):
        return plan(model.last_error or "its engine is stuck", None)
    outlook = Outlook(ledger)
    outlaws = _outlaws(ledger, model, now)
    if not outlaws and not outlook.shortfall(model, []) and outlook.places > 0:
        if ledger.has_room_for(model):
            return plan("there is room for it", load_s)
        return plan("there is room for it as soon as what is going is gone", load_s)
    chosen = _victims(ledger, model, outlaws, outlook, now)
    if chosen is None:
        fits = not _is_kept_out(ledger, model, outlaws)
        reason = "what is being loaded must be loaded first" if fits else "it does not fit"
        return plan(reason, ledger.settings.max_wait_s + load_s if fits else None, fits=fits)
    victims = [_describe(ledger, model, other, now, outlaws) for other in chosen]
    ready_in_s = max(_ready_to_go_in_s(ledger, other, now) for other in chosen)
    names = ", ".join(victim.model for victim in victims)
    return plan(f"in place of {names}", ready_in_s + load_s, *victims)


def _outlaws(ledger: Ledger, model: Model, now: float) -> list[Model]:
    """Return who would have to go by the rules."""
    rules, claimants = ledger.coexistence, list(ledger.claims.values())
    beside = [each for each in claimants if each is not model]
    if not rules.may_join(model, beside):
        beside = []  # their turn comes first, and what they leave is another matter

    def readiness(other: Model) -> int:
        return 2 if _is_awaited(other) else int(_is_busy(ledger, other, now))

    return rules.outlaws(model, ledger.running, ledger.going, beside, readiness)


def _victims(
    ledger: Ledger, model: Model, outlaws: list[Model], outlook: Outlook, now: float
) -> list[Model] | None:
    """Return who would go: the idle if they are enough, else the best of all."""
    if any(outlaw.spec.pinned or _is_awaited(outlaw) for outlaw in outlaws):
        return None
    shortfall = outlook.shortfall(model, outlaws)
    places = 1 - outlook.places - len(outlaws)
    if not shortfall and places <= 0:
        return outlaws
    staying = [
        other
        for other in ledger.running.values()
        if other.name not in ledger.going
        and other not in outlaws
        and not other.spec.pinned
        and not _is_awaited(other)
    ]
    for pool in ([each for each in staying if not _is_busy(ledger, each, now)], staying):
        chosen = cheapest(pool, shortfall, places)
        if chosen is not None:
            return [*outlaws, *chosen]
    return None


def _is_awaited(model: Model) -> bool:
    return model.state is State.STARTING and len(model.waiting) > 0


def _is_busy(ledger: Ledger, model: Model, now: float) -> bool:
    if model.in_flight or model.waiting:
        return True
    return model.state is State.READY and ledger.min_residency_end(model) > now


def _is_kept_out(ledger: Ledger, model: Model, outlaws: list[Model]) -> bool:
    if any(outlaw.spec.pinned for outlaw in outlaws):
        return True
    free, places = ledger.room_at_last()
    return places <= 0 or lacks(free, model.memory)


def _describe(
    ledger: Ledger, wanted: Model, model: Model, now: float, outlaws: list[Model]
) -> Victim:
    if model in outlaws:
        why = ledger.coexistence.why(wanted, model)
    else:
        uses = ledger.usage.of(model)
        why = f"the least loss ({uses:.2g} uses of {model.load_cost_s:.3g} s of loading)"
    if model.in_flight:
        return Victim(model.name, f"in use; {why}", len(model.in_flight))
    return Victim(model.name, f"not used for {max(0.0, now - model.idle_since):.0f} s; {why}", 0)


def _ready_to_go_in_s(ledger: Ledger, model: Model, now: float) -> float:
    if model.in_flight or model.waiting:
        return ledger.settings.max_wait_s
    if model.state is State.STARTING:
        return 0.0
    return min(max(0.0, ledger.min_residency_end(model) - now), ledger.settings.max_wait_s)
