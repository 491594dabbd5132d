from llama_router.proxy import limits


def test_every_limit_is_a_positive_number_with_its_unit_last() -> None:
    found = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert found
    for name, value in found.items():
        assert value > 0, name
        assert name.endswith(("_BYTES", "_S", "_COUNT", "_RESPONSES")), name


def test_limits_fit_together() -> None:
    # An engine's idle connection is given up well before the engine closes it after 5 s.
    assert limits.POOL_IDLE_S + limits.SWEEP_S <= 5
    # A head fits in what is kept of it, and a target in a head.
    assert limits.MAX_TARGET_BYTES < limits.MAX_HEAD_BYTES <= limits.MAX_EARLY_BYTES
    assert limits.WRITE_LOW_WATER_BYTES < limits.WRITE_HIGH_WATER_BYTES
    assert limits.SPOOL_PIECE_BYTES <= limits.SPOOL_THRESHOLD_BYTES < limits.MAX_JSON_BODY_BYTES
    assert limits.MAX_JSON_BODY_BYTES < limits.MAX_MULTIPART_BODY_BYTES
    # Heartbeats are counted in sweeps.
    assert limits.HEARTBEAT_S % limits.SWEEP_S == 0
