from llama_router.engines.logs import LINE_OVERHEAD_BYTES, SUBSCRIPTION_BYTES, LogStore


def test_each_model_has_its_log_and_the_joint_one_names_them() -> None:
    logs = LogStore()
    logs.append("a", "one")
    logs.append("b", "two")
    assert logs.text("a") == "one\n"
    assert logs.text("b") == "two\n"
    assert logs.text(None) == "[a] one\n[b] two\n"
    assert logs.text("unknown") == ""
    logs.forget("a")
    assert logs.text("a") == ""


def test_a_ring_keeps_the_newest_lines_within_its_bytes() -> None:
    logs = LogStore(ring_bytes=10 * (LINE_OVERHEAD_BYTES + 5))
    for number in range(1_000):
        logs.append("m", f"{number:05}")
    assert logs.text("m").splitlines() == [f"{number:05}" for number in range(990, 1_000)]


def test_the_newest_line_is_kept_whatever_its_size() -> None:
    logs = LogStore(ring_bytes=10)
    logs.append("m", "first")
    logs.append("m", "x" * 100)
    assert logs.text("m") == "x" * 100 + "\n"


def test_a_follower_gets_every_line_and_is_woken_once_per_batch() -> None:
    logs = LogStore()
    logs.append("m", "before")
    woken: list[str] = []
    own = logs.subscribe("m", lambda: woken.append("own"))
    joint = logs.subscribe(None, lambda: woken.append("joint"), with_kept_lines=True)
    logs.append("m", "one")
    logs.append("m", "two")
    assert own.take() == ["one", "two"]
    assert joint.take() == ["[m] before", "[m] one", "[m] two"]
    assert sorted(woken) == ["joint", "own"]
    logs.append("m", "three")
    assert woken.count("own") == 2
    assert own.take() == ["three"]
    assert own.take() == []


def test_a_follower_that_is_too_slow_loses_the_oldest_and_is_told() -> None:
    logs = LogStore()
    follower = logs.subscribe("m", lambda: None)
    room = SUBSCRIPTION_BYTES // (LINE_OVERHEAD_BYTES + 4)
    for number in range(room + 7):
        logs.append("m", f"{number:04}")
    lines = follower.take()
    assert lines[0] == "[7 lines dropped]"
    assert lines[1] == "0007"
    assert len(lines) == room + 1


def test_a_closed_follower_gets_nothing_more() -> None:
    logs = LogStore()
    follower = logs.subscribe("m", lambda: None)
    follower.close()
    follower.close()
    logs.append("m", "late")
    assert follower.take() == []
    assert logs._subscriptions == {}


def test_kept_lines_are_fitted_in_by_the_reader_and_go_before_newer_ones() -> None:
    logs = LogStore()
    room = SUBSCRIPTION_BYTES // (LINE_OVERHEAD_BYTES + 4)
    for number in range(room + 7):
        logs.append("m", f"{number:04}")
    woken: list[None] = []
    follower = logs.subscribe("m", lambda: woken.append(None), with_kept_lines=True)
    assert woken == [None]
    logs.append("m", "last")
    lines = follower.take()
    assert (lines[0], lines[1], lines[-1]) == ("[8 lines dropped]", "0008", "last")
    slow = logs.subscribe("m", lambda: None, with_kept_lines=True)
    for number in range(room + 1):
        logs.append("m", f"{number:04}")
    lines = slow.take()
    assert (lines[0], lines[1]) == (f"[{room + 7 + 1 + 1} lines dropped]", "0001")
