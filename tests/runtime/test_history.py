import asyncio
from collections.abc import Callable
from unittest.mock import Mock

from llama_router.proxy.gate import Ended
from llama_router.runtime.history import MAX_RECORDS_PER_S, RecordRate, record_of


class Seconds:
    """Stands in for an event loop's timers."""

    def __init__(self) -> None:
        self.handles: list[Mock] = []

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Mock:
        assert delay_s == 1.0
        self.handles.append(Mock(spec=asyncio.TimerHandle, fire=callback))
        return self.handles[-1]


def test_so_many_of_each_second_are_remembered_and_the_others_counted() -> None:
    seconds = Seconds()
    rate = RecordRate(seconds.call_later, 3)
    assert [rate.admits() for _ in range(5)] == [True] * 3 + [False] * 2
    assert rate.left_out_count == 2
    (first,) = seconds.handles
    first.fire()
    assert [rate.admits() for _ in range(4)] == [True] * 3 + [False]
    assert rate.left_out_count == 3


def test_a_pause_costs_no_timers_and_saves_nothing_up() -> None:
    seconds = Seconds()
    rate = RecordRate(seconds.call_later)
    assert not seconds.handles
    assert rate.admits()
    seconds.handles[0].fire()
    assert len(seconds.handles) == 1
    assert sum(rate.admits() for _ in range(2 * MAX_RECORDS_PER_S)) == MAX_RECORDS_PER_S
    rate.close()
    seconds.handles[1].cancel.assert_called_once()


def test_a_record_says_when_its_request_came() -> None:
    record = record_of(Ended("a", "ann", "-.-", 2.0, 0.5, 1.0, 3, 4), 1_000_000.0)
    assert (record.time_s, record.total_s) == (999_998.0, 2.0)
    assert (record.model, record.key, record.end) == ("a", "ann", "-.-")
    assert (record.queue_s, record.first_byte_s) == (0.5, 1.0)
    assert (record.tokens_in, record.tokens_out) == (3, 4)
    asked = Ended("a", "", "-.-", 2.0, None, None, None, None, "what", "/v1/x", 200, 1)
    record = record_of(asked, 5.0)
    assert (record.path, record.status, record.prompt) == ("/v1/x", 200, "what")
