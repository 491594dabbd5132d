"""What is true of a core after every step. For tests; the cost is linear in its size.

:func:`check` looks at one moment. What spans several (one outcome per request, each timer fired
or cancelled, generations that grow) is to be read off the commands.
"""

import math
from itertools import pairwise

from llama_router.core.events import Timer, TimerKind
from llama_router.core.machine import PLAN_PAUSE_S, Core
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.outlook import Outlook
from llama_router.core.policies.base import Claim, Stop, Wake
from llama_router.core.states import State


class InvariantViolation(AssertionError):  # noqa: N818 - says what it is, like AssertionError's kin
    """The core contradicts itself; the text names the model or request and the rule."""


def check(core: Core) -> None:
    """Raise InvariantViolation unless everything below holds."""
    for model in core.ledger.models.values():
        _check_books(core, model)
        _check_queue(core, model)
        _check_engine(core, model)
    _check_exclusion(core)
    _check_memory(core)
    _check_claims(core)
    _check_requests(core)
    _check_timers(core)
    _check_progress(core)


def _require(holds: object, rule: str, about: object) -> None:
    if not holds:
        raise InvariantViolation(f"{rule}: {about}")


def _check_books(core: Core, model: Model) -> None:
    ledger = core.ledger
    _require(
        (ledger.running.get(model.name) is model) == model.has_process,
        "running lists exactly the models with a process",
        model,
    )
    _require(
        (ledger.waiting.get(model.name) is model) == (len(model.waiting) > 0),
        "waiting lists exactly the models with waiters",
        model,
    )
    _require(model.generation <= ledger.generation, "generations come from the counter", model)
    _require(
        not model.removed or model.has_process or model.state is State.STUCK,
        "a removed model goes with its process",
        model,
    )


def _check_queue(core: Core, model: Model) -> None:
    requests = list(model.waiting)
    for request in requests:
        _require(core.ledger.requests.get(request.request_id) is request, "is known", request)
        _require(request.model is model, "waits for its own model", request)
        _require(request.generation == 0, "who waits is not dispatched", request)
        _require(request.kind in (RequestKind.CLIENT, RequestKind.LOAD), "only these wait", request)
    _require(
        math.isclose(
            model.waiting.arrived_sum_s, sum(each.arrived_at for each in requests), abs_tol=1e-3
        ),
        "the sum of arrivals is that of who waits",
        model,
    )
    bounced = [request.request_id for request in requests if request.bounced]
    _require(
        [request.request_id for request in requests[: len(bounced)]] == sorted(bounced),
        "the bounced are first, in their order",
        model,
    )
    riders = [each for each in requests if each.kind is RequestKind.LOAD or not each.takes_slot]
    _require(
        {*model.riders} == {each.request_id for each in riders},
        "riders are those who wait and need no slot",
        model,
    )
    listeners = sum(each.wants_notices for each in requests)
    _require(model.listeners == listeners, "listeners are those who want notices", model)
    hopeless = model.is_given_up or model.state is State.STUCK or model.removed
    _require(
        not requests or not (hopeless or core.ledger.shutting_down),
        "nobody waits for what will not come",
        model,
    )


def _check_engine(core: Core, model: Model) -> None:
    for request in [*model.in_flight.values(), *model.visitors.values()]:
        _require(core.ledger.requests.get(request.request_id) is request, "is known", request)
        _require(request.generation == model.generation, "is of the present engine", request)
        _require(
            model.state in (State.READY, State.DRAINING, State.STOPPING, State.STUCK),
            "only what was ready has requests in flight",
            model,
        )
    extras = sum(not request.takes_slot for request in model.in_flight.values())
    _require(model.extras == extras, "extras are those in flight that take no slot", model)
    _require(model.state is not State.DRAINING or model.in_flight, "drains something", model)
    _require(not model.unloads or model.has_process, "an unload waits for a process", model)
    _require(
        not model.held
        or (model.state is State.READY and model.waiting and model.waiting.head.bounced),
        "only a bounce holds a queue back",
        model,
    )
    _require(
        not core.ledger.shutting_down or model.state not in (State.STARTING, State.READY),
        "everything goes in a shutdown",
        model,
    )


def _check_exclusion(core: Core) -> None:
    by_age = sorted(core.ledger.running.values(), key=lambda model: model.generation)
    for number, model in enumerate(by_age):
        # Models may be regrouped under running processes; that stops none of them.
        elders = [each for each in by_age[:number] if not each.regrouped]
        _require(
            model.regrouped or core.ledger.coexistence.may_start(model, elders),
            "models that exclude each other do not run together",
            (model, elders),
        )
    for one, other in pairwise(by_age):
        _require(one.generation != other.generation, "a generation is one start", (one, other))


def _check_memory(core: Core) -> None:
    ledger = core.ledger
    booked: dict[str, int] = {}
    for model in ledger.models.values():
        holds = model.has_process or model.state is State.STUCK
        _require(holds or not model.reserved, "nothing is booked for nothing", model)
        for part in model.reserved:
            booked[part.device] = booked.get(part.device, 0) + part.size_bytes
    for device, size_bytes in ledger.memory.reserved.items():
        _require(booked.get(device, 0) == size_bytes, "the books add up", device)
    for device, budget in ledger.memory.budgets.items():
        allowed = budget + ledger.memory.overdraft.get(device, 0)
        _require(booked.get(device, 0) <= allowed, "no device is overbooked", device)
    limit = ledger.settings.max_loaded
    # The limit may be lowered under running processes; that stops none of them either.
    started = [model for model in ledger.running.values() if not model.regrouped]
    _require(not limit or len(started) <= limit, "no more engines than allowed", core)


def _check_claims(core: Core) -> None:
    ledger = core.ledger
    for name, model in ledger.claims.items():
        _require(model.name == name, "is filed under its name", model)
        _require(model.state is State.UNLOADED and model.waiting, "a claim is for waiters", model)
    free = Outlook(ledger).free
    for model in ledger.claims.values():
        for part in model.memory:
            enough = free.get(part.device, 0) >= 0 or not part.size_bytes
            _require(enough, "there will be room for each claim", (model, part))
    for model in ledger.models.values():
        is_going = model.state in (State.DRAINING, State.STOPPING)
        _require(
            (ledger.going.get(model.name) is model)
            == (is_going or bool(model.closing or model.chosen_for)),
            "going lists exactly those who go",
            model,
        )
        sake_of = model.closing or model.chosen_for
        _require(
            not sake_of or is_going or sake_of in ledger.claims,
            "nobody is closed for nothing",
            model,
        )
        _require(
            not (model.closing and not is_going and not model.in_flight and not model.waiting),
            "who has to go and is idle is stopped",
            model,
        )
        _require(not (model.spec.pinned and sake_of and not is_going), "pinned models stay", model)
    _check_inspections(core)


def _check_inspections(core: Core) -> None:
    ledger = core.ledger
    for name in ledger.inspections:
        model = ledger.models.get(name)
        _require(
            model is not None and model.state is State.UNLOADED and model.waiting,
            "who is inspected is waited for",
            name,
        )
    for victim in ledger.going.values():
        inspection = ledger.inspections.get(victim.chosen_for or victim.closing)
        if victim.closing in ledger.claims:
            passed = inspection is not None and inspection.is_passed
            _require(passed, "nobody goes for a model that was not inspected", victim)
        if victim.chosen_for and victim.state in (State.STARTING, State.READY):
            asked = inspection is not None and not inspection.is_passed
            _require(asked, "who was chosen is kept only until an answer comes", victim)


def _check_requests(core: Core) -> None:
    for request_id, request in core.ledger.requests.items():
        _require(request.request_id == request_id, "is filed under its id", request)
        _require(len(_places(request)) == 1, "is in one place", (request, _places(request)))


def _places(request: Request) -> list[str]:
    model = request.model
    places = [
        name
        for name, where in (
            ("in_flight", model.in_flight),
            ("visitors", model.visitors),
            ("unloads", model.unloads),
        )
        if where.get(request.request_id) is request
    ]
    if any(other is request for other in model.waiting):
        places.append("waiting")
    if request.generation and not (
        request.generation == model.generation and model.state in (State.READY, State.DRAINING)
    ):
        places = places or ["engine gone"]  # the proxy is about to report its end
    return places


def _check_timers(core: Core) -> None:
    ledger = core.ledger
    expected = [timer for model in ledger.models.values() for timer in _timers_of(model)]
    optional = [Timer(TimerKind.SWITCH)] if core.policy.serves_at_once else []
    optional += [
        Timer(TimerKind.TTL, model.name, model.generation)
        for model in ledger.models.values()
        # A timer that was set stays set while the model is used, and when it needs it no more.
        if model.state is State.READY
        and (model.in_flight or model.ttl_s is None or model.spec.pinned)
    ]
    expected += [
        Timer(TimerKind.INSPECTION, name, inspection.number)
        for name, inspection in ledger.inspections.items()
        if not inspection.is_passed
    ]
    if ledger.shutting_down:
        optional.append(Timer(TimerKind.SHUTDOWN_DEADLINE))
    if ledger.settings.max_queue_s:
        expected += [
            Timer(TimerKind.QUEUE_TIMEOUT, model.name)
            for model in ledger.waiting.values()
            if any(request.kind is RequestKind.CLIENT for request in model.waiting)
        ]
        optional += [Timer(TimerKind.QUEUE_TIMEOUT, name) for name in ledger.waiting]
    if ledger.shutting_down:
        optional += [timer for timer in expected if timer.kind is TimerKind.DRAIN_DEADLINE]
    for timer in expected:
        _require(timer in ledger.timers or timer in optional, "has its timer", timer)
    for timer in ledger.timers:
        _require(timer in expected or timer in optional, "no timer without a use", timer)
    _require(not (ledger.shutdown_complete and ledger.timers), "the end has no timers", core)


def _timers_of(model: Model) -> list[Timer]:
    kinds: list[TimerKind] = []
    match model.state:
        case State.STARTING:
            kinds.append(TimerKind.READY_TIMEOUT)
        case State.DRAINING:
            kinds.append(TimerKind.DRAIN_DEADLINE)
        case State.STOPPING:
            kinds.append(TimerKind.REAP_DEADLINE if model.killed else TimerKind.STOP_GRACE)
        case State.COOLING:
            kinds.append(TimerKind.BACKOFF)
        case _:
            pass
    if model.held:
        kinds.append(TimerKind.BOUNCE)
    is_idle = model.state is State.READY and not model.in_flight
    if is_idle and model.ttl_s is not None and not model.spec.pinned:
        kinds.append(TimerKind.TTL)
    return [Timer(kind, model.name, model.generation) for kind in kinds]


def _check_progress(core: Core) -> None:
    ledger = core.ledger
    plan = [step for step in core.policy.plan(ledger) if not isinstance(step, Wake)]
    look_again_at = ledger.timers.get(Timer(TimerKind.SWITCH), math.inf)
    is_bargain = False
    being_inspected = {
        name for name, inspection in ledger.inspections.items() if not inspection.is_passed
    }
    for step in plan:
        if isinstance(step, Stop) and step.sake_of.name in being_inspected:
            continue
        # With each request that ends, a swap costs those who use the victims a little less; that
        # is looked at when the timer says so, and with it what others would gain by it.
        is_bargain |= isinstance(step, Claim) and any(
            victim.in_flight or victim.waiting for victim in step.victims
        )
        latest_at = math.inf if is_bargain else ledger.now + PLAN_PAUSE_S
        is_soon = look_again_at < math.inf and look_again_at <= latest_at
        _require(is_soon, "what can be done has been done", step)
    if core.policy.serves_at_once:
        for model in ledger.waiting.values():
            is_open = model.state is State.READY and not model.held and not model.closing
            able = model.capacity or model.riders
            _require(not (is_open and able), "who can be served is served", model)
    under_way = (
        look_again_at < math.inf
        or being_inspected
        or any(
            model.state is not State.READY or model.in_flight or model.held
            for model in ledger.running.values()
        )
        or any(model.state is State.COOLING for model in ledger.waiting.values())
    )
    _require(not ledger.waiting or under_way, "whoever waits, waits for something", core)
    _require(
        not ledger.shutting_down or ledger.running or ledger.shutdown_complete,
        "a shutdown ends when nothing runs",
        core,
    )
