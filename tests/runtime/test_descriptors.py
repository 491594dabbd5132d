import resource
import sys

import pytest

from llama_router.runtime.descriptors import RESERVED_COUNT, client_count, raise_limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")


class Limits:
    """Stands in for the process's limits, which cannot be raised again once lowered."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        self.is_stubborn = False

    def get(self, _which: int) -> tuple[int, int]:
        return self.now

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        if self.is_stubborn:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    fake = Limits(1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", fake.get)
    monkeypatch.setattr(resource, "setrlimit", fake.set)
    return fake


def test_the_soft_limit_is_raised_to_the_hard_one(limits: Limits) -> None:
    assert raise_limit() == 4096
    assert limits.now == (4096, 4096)


def test_a_system_that_refuses_is_taken_as_it_is(limits: Limits) -> None:
    limits.is_stubborn = True
    assert raise_limit() == 1024


def test_no_limit_is_still_a_number(limits: Limits) -> None:
    limits.now = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert 1024 < raise_limit() <= 1 << 20
    limits.now = (1024, resource.RLIM_INFINITY)
    assert 1024 < raise_limit() <= 1 << 20


def test_clients_get_what_is_left_of_the_descriptors_and_never_none() -> None:
    assert client_count(RESERVED_COUNT + 3000, 0) == 1000
    assert client_count(64, 0) == 16


def test_a_configured_count_is_kept_as_far_as_it_fits() -> None:
    assert client_count(RESERVED_COUNT + 3000, 10) == 10
    assert client_count(RESERVED_COUNT + 3000, 5000) == 1000
