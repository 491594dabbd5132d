import json
from pathlib import Path

from bench import report, streams
from bench.settings import Settings
from bench.stats import Spread, Table, ratios

BUSIEST = streams.setting_of(500)


def table_of(**cpu_us: list[float]) -> Table:
    table = Table()
    for peer, values in cpu_us.items():
        for value in values:
            table.add(peer, BUSIEST, {"cpu_us_per_chunk": value, "p99_us": 100 * value})
    return table


def test_a_ratio_is_taken_within_each_round() -> None:
    table = table_of(router=[10, 40], nginx=[10, 20])
    found = ratios(table.get("router", BUSIEST), table.get("nginx", BUSIEST), "cpu_us_per_chunk")
    assert found == [1.0, 2.0]
    assert ratios(None, table.get("nginx", BUSIEST), "cpu_us_per_chunk") == []


def test_the_floor_is_subtracted_within_each_round() -> None:
    table = table_of(direct=[1, 2], nginx=[3, 7])
    table.subtract("p99_us", "direct", "added_p99_us")
    nginx, direct = table.get("nginx", BUSIEST), table.get("direct", BUSIEST)
    assert nginx is not None
    assert direct is not None
    assert nginx.values["added_p99_us"] == [200, 500]
    assert "added_p99_us" not in direct.values


def test_targets_are_judged_by_the_median_and_not_at_all_without_measurement() -> None:
    met = report.verdicts({"streams": table_of(router=[12, 12, 90], nginx=[10, 10, 10])})
    missed = report.verdicts({"streams": table_of(router=[16, 16, 10], nginx=[10, 10, 10])})
    assert (met[0].met, missed[0].met) == (True, False)
    assert met[0].measured == Spread(1.2, 1.2, 9.0)
    assert all(verdict.met is None for verdict in report.verdicts({}))


def test_the_text_shows_targets_doubts_and_what_was_left_out() -> None:
    table = table_of(router=[12], nginx=[10])
    table.add("router", BUSIEST, {"failed_streams": 3, "others_cores": 0.5, "chunks_share": 0.9})
    text = report.text({"streams": table}, ["nginx: not installed\nmore"])
    assert "1.200" in text
    assert "3 wrong answers" in text
    assert "0.50 cores" in text
    assert "90% of the events" in text
    assert "nginx: not installed" in text
    assert "more" not in text


def test_the_json_holds_every_round(tmp_path: Path) -> None:
    settings = Settings(
        seconds=1, rounds=2, stream_counts=(500,), connection_counts=(1,), swap_pairs=1, starts=1,
        work_dir=tmp_path, peer_cpu=None, load_cpu=None, llama_server=None, nginx=None,
        router=None,
    )  # fmt: skip
    text = report.as_json({"streams": table_of(router=[12, 14])}, ["x"], settings)
    document = json.loads(text)
    (row,) = document["sections"]["streams"]
    assert row["values"]["cpu_us_per_chunk"] == [12, 14]
    assert row["median"]["cpu_us_per_chunk"] == 13
    assert document["skipped"] == ["x"]
