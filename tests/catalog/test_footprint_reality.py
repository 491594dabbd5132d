"""Estimates beside what llama-server takes, after a prompt that fills its context."""

from pathlib import Path

import pytest

from tests.support.footprint_cases import CASES, MIB, empty_bytes, outcome_of

pytestmark = [pytest.mark.llama_server, pytest.mark.slow, pytest.mark.timeout(1800)]

LEAST_BYTES = 400 * MIB
MOST_OVER = 0.10
MOST_UNDER = 0.05


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """What an engine takes that has next to nothing to hold."""
    return empty_bytes(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("name", CASES)
def test_estimate_is_near_what_the_engine_takes(
    name: str, tmp_path: Path, empty: tuple[int, int]
) -> None:
    outcome = outcome_of(name, tmp_path, empty)

    logged = {kind: round(size / MIB, 1) for kind, size in outcome.logged.items()}
    need = outcome.footprint.needs[0]
    report = f"{outcome}; logged {logged}, {need}"
    assert outcome.taken >= LEAST_BYTES, report
    assert -MOST_UNDER <= outcome.deviation <= MOST_OVER, report
    for kind, purpose in (("model", "weights"), ("KV", "kv_cache"), ("RS", "recurrent_state")):
        logged_bytes = outcome.logged.get(kind, 0)
        assert getattr(need, purpose) == pytest.approx(logged_bytes, abs=MIB), report
