from pathlib import Path

import msgspec
import pytest

from llama_router.simulator.trace import (
    MAX_LINE_CHARS,
    TraceError,
    TraceRequest,
    parse_trace,
    read_trace,
)


def test_csv_is_sorted_and_starts_at_zero() -> None:
    lines = ["time_s,model,key,tokens_in,tokens_out\n", "12.5,b,,,7\n", '10,"a,1",k,3,\n']
    assert parse_trace(lines, "t") == [
        TraceRequest(0.0, "a,1", "k", 3),
        TraceRequest(2.5, "b", "", tokens_out=7),
    ]


def test_json_lines_may_leave_out_all_but_time_and_model() -> None:
    lines = ['{"time_s": 1, "model": "a"}', "", '{"time_s": 2, "model": "b", "tokens_in": null}']
    assert parse_trace(lines, "t") == [TraceRequest(0.0, "a"), TraceRequest(1.0, "b")]


def test_unknown_fields_and_comments_are_ignored() -> None:
    assert parse_trace(["# made by hand", '{"time_s":0,"model":"a","x":[1]}'], "t") == [
        TraceRequest(0.0, "a")
    ]
    assert parse_trace(["model,end,time_s", "a,ok,4"], "t") == [TraceRequest(0.0, "a")]


def test_json_lines_may_have_everything() -> None:
    requests = [TraceRequest(0.0, "a", "k", 1, 2, is_batch=True), TraceRequest(0.5, 'b"\n')]
    lines = [msgspec.json.encode(request).decode() for request in requests]
    assert parse_trace(lines, "t") == requests


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["time_s,model"], "has no requests"),
        (["when,what", "1,a"], "column 'time_s'"),
        (["time_s,model", "1"], "t:2: has 1 values for 2 columns"),
        (["time_s,model", "x,a"], "t:2"),
        (["time_s,model", "nan,a"], "t:2: time_s is nan"),
        (["time_s,model", "1,"], "t:2"),
        (["time_s,model,tokens_in", "1,a,-1"], "t:2: token counts"),
        (['{"time_s": 1, "model": "a"}', "{"], "t:2"),
        (['{"time_s": 1e300, "model": "a"}'], "t:1: time_s"),
        (['{"time_s": 1, "model": "' + "a" * 2000 + '"}'], "t:1: model and key"),
        (["x" * (MAX_LINE_CHARS + 1)], "t:1: is longer"),
    ],
)
def test_a_fault_is_told_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        parse_trace(lines, "t")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "missing")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(binary)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("\ufefftime_s,model\r\n3,a\r\n", encoding="utf-8")
    assert read_trace(path) == [TraceRequest(0.0, "a")]
