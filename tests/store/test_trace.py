import json

from llama_router.store.records import RequestRecord
from llama_router.store.trace import trace_csv, trace_lines


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


def test_as_csv_a_trace_has_a_line_of_names_and_quotes_where_it_must() -> None:
    records = [
        RequestRecord(time_s=1000.5, model='a,"b"', total_s=1.0, end="-.-"),
        RequestRecord(
            time_s=1002.75, model="c", key="ann", tokens_in=0, tokens_out=3, total_s=1.0, end="-.-"
        ),
    ]
    assert b"".join(trace_csv(records)).decode().splitlines() == [
        "time_s,model,key,tokens_in,tokens_out",
        '0.0,"a,""b""",,,',
        "2.25,c,ann,0,3",
    ]


def test_no_history_is_an_empty_trace() -> None:
    assert list(trace_lines([])) == []
    assert b"".join(trace_csv([])) == b"time_s,model,key,tokens_in,tokens_out\n"
