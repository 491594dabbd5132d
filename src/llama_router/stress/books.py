"""Which engine lived when, by the engines' own reports: what must not overlap, and who is to blame.

The router is not asked. An engine is there from its hello to the end of its process, and so are its
children: memory is free when the last of them is gone. The end of its control connection tells that
it has gone, but may be read later than the hello of who comes in its place.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

# What a request may suffer from; flooding, slow or unwilling engines are no excuse.
EXCUSES = frozenset({"theft", "exit", "memory", "memory-limit", "hang", "kill", "crash"})
# Until an engine's end, or a fault's, has gone round.
_LAG_S = 2.0
_SLOW = frozenset({"slow"})
_MEMORY = frozenset({"memory", "memory-limit"})
# A back-off is 30 s at most and begins with the reap.
_BACKOFF_MAX_S = 45.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What must hold at every moment. ``groups`` and ``sizes_bytes`` by model."""

    sizes_bytes: Mapping[str, int]
    groups: Mapping[str, str]
    budget_bytes: int
    max_loaded: int = 0


@dataclass(slots=True, eq=False)
class Life:
    """One process, or one fault that a client asked for. ``port`` is 0 for children and faults."""

    model: str
    kinds: frozenset[str]
    port: int = 0
    pid: int = 0
    ended_s: float = math.inf


class Books:
    """Engines and faults of a run. ``violate`` is told what must not be."""

    def __init__(self, rules: Rules, violate: Callable[[str], None]) -> None:
        self._rules = rules
        self._violate = violate
        self._lives: dict[str, list[Life]] = {}
        self._living: dict[Life, None] = {}

    @contextmanager
    def engine(self, model: str, pid: int, port: int, kinds: tuple[str, ...]) -> Iterator[None]:
        """An engine lives within. ``kinds``: how it misbehaves."""
        life = Life(model, frozenset(kinds), port, pid)
        self._check(life)
        with self._lived(life):
            yield

    @contextmanager
    def child(self, model: str, pid: int) -> Iterator[None]:
        """A child of one of the model's engines lives within."""
        with self._lived(Life(model, frozenset(), pid=pid)):
            yield

    @contextmanager
    def fault(self, model: str) -> Iterator[None]:
        """A request is under way that tells the model's engine to fail."""
        life = Life(model, EXCUSES)
        self._lives.setdefault(model, []).append(life)
        try:
            yield
        finally:
            life.ended_s = time.monotonic()

    @contextmanager
    def _lived(self, life: Life) -> Iterator[None]:
        self._lives.setdefault(life.model, []).append(life)
        self._living[life] = None
        try:
            yield
        finally:
            del self._living[life]
            life.ended_s = time.monotonic()

    def _check(self, new: Life) -> None:
        """Look whether ``new`` may be there beside who is."""
        rules = self._rules
        living = [life for life in self._living if _is_alive(life.pid)]
        for other in living:
            if other.model == new.model:
                what = "an engine" if other.port else "a child of an engine"
                self._violate(f"{new.model} was started beside {what} of its own")
            elif other.port == new.port:
                self._violate(f"{new.model} and {other.model} were given the same port {new.port}")
            elif rules.groups.get(other.model) != rules.groups.get(new.model):
                self._violate(f"{new.model} runs beside {other.model} of another group")
        lives = [*living, new]
        models = {life.model for life in lives}
        held_bytes = sum(rules.sizes_bytes.get(model, 0) for model in models)
        who = ", ".join(
            sorted(life.model if life.port else f"{life.model}'s child" for life in lives)
        )
        if held_bytes > rules.budget_bytes:
            self._violate(f"together beyond the memory there is: {who}")
        if rules.max_loaded and len(models) > rules.max_loaded:
            self._violate(f"more than {rules.max_loaded} at a time: {who}")

    def excuses(self, code: str, model: str, since_s: float) -> bool:
        """Return whether an error with ``code`` of a request for ``model`` has its cause.

        ``since_s`` is when the request was sent (``time.monotonic``). ``cut`` is the code of an
        answer that ends too early.
        """
        match code:
            case "engine_crashed" | "engine_timeout" | "bad_upstream" | "model_load_failed" | "cut":
                return self._had(model, EXCUSES, since_s - _LAG_S)
            case "load_timeout":
                return self._had(model, EXCUSES | _SLOW, since_s - _LAG_S)
            case "model_backing_off":
                return self._had(model, EXCUSES | _SLOW, since_s - _BACKOFF_MAX_S)
            case "model_failed":
                return self._had(model, EXCUSES | _SLOW, -math.inf)
            case "does_not_fit":
                return self._had(model, _MEMORY, -math.inf)
            case "model_unloaded":
                # An order, or a drain that has come to its deadline.
                return True
            case _:
                return False

    def _had(self, model: str, kinds: frozenset[str], after_s: float) -> bool:
        return any(
            life.ended_s >= after_s and life.kinds & kinds for life in self._lives.get(model, ())
        )


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
