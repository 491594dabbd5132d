from collections import Counter

from llama_router.stress.tally import VIOLATIONS_SHOWN_COUNT, Leaks, Report, Tally

MIB = 1024 * 1024


def report(**changes: object) -> Report:
    tally = Tally(outcomes=Counter({"ok chat": 3, "error engine_crashed": 1}))
    values = {"seed": 42, "load_s": 60.0, "tally": tally, "leaks": Leaks()}
    return Report(**(values | changes))  # type: ignore[arg-type]  # as the test means


def test_a_run_without_violations_is_good() -> None:
    run = report(rss_start_bytes=MIB, rss_end_bytes=3 * MIB)
    run.judge(rss_growth_max_bytes=2 * MIB)
    assert run.is_good
    assert run.tally.request_count == 4


def test_every_leak_and_too_much_growth_is_a_violation() -> None:
    leaks = Leaks(processes=["a"], descriptors=["b", "c"], sockets=["d"], files=["e"])
    run = report(leaks=leaks, rss_start_bytes=0, rss_end_bytes=3 * MIB)
    run.judge(rss_growth_max_bytes=2 * MIB)
    assert run.tally.violation_count == 6
    assert "leaked files: e" in run.tally.violations
    assert "the router has grown by 3 MiB" in run.tally.violations


def test_a_run_in_which_nothing_works_proves_nothing() -> None:
    # The router itself answers these.
    own = {"ok listing": 3, "ok intruder": 1, "ok plan": 2}
    run = report(tally=Tally(outcomes=Counter({"error model_failed": 9} | own)))
    run.judge(rss_growth_max_bytes=MIB)
    assert run.tally.violations == ["not one request was answered well"]


def test_the_table_says_all_of_it() -> None:
    run = report(engines_started_count=7, engine_kinds=Counter({"hang": 2}))
    run.tally.waits_s += [0.1, 0.2, 9.5]
    for number in range(VIOLATIONS_SHOWN_COUNT + 5):
        run.tally.violate(f"fault {number}")
    lines = [" ".join(line.split()) for line in run.table().splitlines()]
    for line in (
        "seed 42",
        "requests 4",
        "ok chat 3",
        "engines started 7",
        "hang 2",
        "leaked processes 0",
        "leaked sockets 0",
        "wait, worst 9.500 s",
        "violations 25",
        "VIOLATION: fault 0",
        "… and 5 more",
    ):
        assert line in lines, line
