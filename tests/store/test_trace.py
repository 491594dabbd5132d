import json

from llama_router.store.records import RequestRecord
from llama_router.store.trace import trace_lines


def test_a_trace_counts_from_its_first_request_and_says_only_what_is_known() -> None:
    records = [
        RequestRecord(time_s=1000.5, model="a", total_s=1.0, end="-.-"),
        RequestRecord(
            time_s=1002.75, model="b", key="ann", tokens_in=0, tokens_out=3, total_s=1.0, end="-.-"
        ),
    ]
    lines = b"".join(trace_lines(records)).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"time_s": 0.0, "model": "a"},
        {"time_s": 2.25, "model": "b", "key": "ann", "tokens_in": 0, "tokens_out": 3},
    ]


def test_no_history_is_an_empty_trace() -> None:
    assert list(trace_lines([])) == []
