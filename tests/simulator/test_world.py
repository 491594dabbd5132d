import pytest

from llama_router.core.commands import Command, Dispatch, Reject, RejectKind, SetTimer, Spawn
from llama_router.core.events import EngineReady, Event, RequestArrived, Timer, TimerKind
from llama_router.simulator.baselines import LruRouter
from llama_router.simulator.fleet import Fleet, Machine, SimulatedModel
from llama_router.simulator.trace import TraceRequest
from llama_router.simulator.world import SimulationError, World

MACHINE = Machine(10, prefill_tokens_s=100.0, decode_tokens_s=10.0, stop_s=0.5)
FLEET = Fleet(MACHINE, (SimulatedModel("a", 4, 2.0, slots=1), SimulatedModel("b", 8, 3.0)))


def lru() -> LruRouter:
    return LruRouter(FLEET, by_count=False)


def test_time_is_made_of_load_prefill_and_decode() -> None:
    result = World(FLEET, lru()).run([TraceRequest(1.0, "a", tokens_in=50, tokens_out=20)])
    assert list(result.waits_s) == [2.0]
    assert list(result.first_token_waits_s) == [2.5]
    assert result.makespan_s == 5.5
    assert (result.loads, result.load_time_s, result.peak_memory_bytes) == (1, 2.0, 4)


def test_what_has_no_slot_waits_inside_its_engine() -> None:
    class NoLimit:
        def handle(self, event: Event, _now: float) -> list[Command]:
            match event:
                case RequestArrived(1):
                    return [Spawn("a", 1)]
                case EngineReady():
                    return [Dispatch(1, "a", 1), Dispatch(2, "a", 1)]
                case _:
                    return []

    requests = [TraceRequest(0.0, "a", tokens_in=0, tokens_out=10) for _ in range(2)]
    result = World(FLEET, NoLimit()).run(requests)
    assert list(result.waits_s) == [2.0, 2.0]
    assert list(result.first_token_waits_s) == [2.0, 3.0]
    assert result.slo_attainment(2.5) == 0.5


def test_memory_is_held_until_the_reap() -> None:
    result = World(FLEET, lru()).run([TraceRequest(0.0, "a"), TraceRequest(100.0, "b")])
    # The stop of a takes its half second before b starts.
    assert list(result.waits_s) == [2.0, 3.5]
    assert result.peak_memory_bytes == 8


def test_refusals_are_counted_by_kind() -> None:
    class Refuser:
        def handle(self, event: Event, _now: float) -> list[Command]:
            assert isinstance(event, RequestArrived)
            return [Reject(event.request_id, RejectKind.MODEL_FAILED, "broken")]

    result = World(FLEET, Refuser()).run([TraceRequest(0.0, "a"), TraceRequest(1.0, "b")])
    assert result.rejected == {"model_failed": 2}
    assert result.served == 0
    assert result.slo_attainment(10.0) == 0.0


def test_a_forgotten_request_is_an_error() -> None:
    class Forgetful:
        def handle(self, _event: Event, _now: float) -> list[Command]:
            return []

    with pytest.raises(SimulationError, match="1 requests are never answered"):
        World(FLEET, Forgetful()).run([TraceRequest(0.0, "a")])


def test_a_dispatch_without_an_engine_is_an_error() -> None:
    class Wrong:
        def handle(self, event: Event, _now: float) -> list[Command]:
            assert isinstance(event, RequestArrived)
            return [Dispatch(event.request_id, "a", 1)]

    with pytest.raises(SimulationError, match="cannot be"):
        World(FLEET, Wrong()).run([TraceRequest(0.0, "a")])


def test_a_timer_that_is_set_for_the_same_moment_for_ever_is_an_error() -> None:
    class Spins:
        def handle(self, _event: Event, now: float) -> list[Command]:
            return [SetTimer(Timer(TimerKind.SWITCH), now)]

    with pytest.raises(SimulationError, match="stands still"):
        World(FLEET, Spins()).run([TraceRequest(0.0, "a")])


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(SimulationError, match="'c'"):
        World(FLEET, lru()).run([TraceRequest(0.0, "c")])
