from llama_router.proxy.gate import Ended
from llama_router.runtime.history import MAX_RECORDS_PER_S, RecordRate, record_of


def test_so_many_of_each_second_are_remembered_and_the_others_counted() -> None:
    rate = RecordRate(3)
    assert [rate.admits(10.0 + number / 10) for number in range(5)] == [True] * 3 + [False] * 2
    assert rate.left_out_count == 2
    assert [rate.admits(11.0) for _ in range(4)] == [True] * 3 + [False]
    assert rate.left_out_count == 3


def test_a_pause_saves_nothing_up() -> None:
    rate = RecordRate()
    assert rate.admits(0.0)
    assert sum(rate.admits(1000.0) for _ in range(2 * MAX_RECORDS_PER_S)) == MAX_RECORDS_PER_S


def test_a_record_says_when_its_request_came() -> None:
    record = record_of(Ended("a", "ann", "-.-", 2.0, 0.5, 1.0, 3, 4), 1_000_000.0)
    assert (record.time_s, record.total_s) == (999_998.0, 2.0)
    assert (record.model, record.key, record.end) == ("a", "ann", "-.-")
    assert (record.queue_s, record.first_byte_s) == (0.5, 1.0)
    assert (record.tokens_in, record.tokens_out) == (3, 4)
