"""What came of a run: outcomes, waits, violations, and the table of it all."""

from collections import Counter
from dataclasses import dataclass, field

# The rest is a number: one fault may show thousands of times.
VIOLATIONS_SHOWN_COUNT = 20
_MIB = 1024 * 1024
# What an engine has answered well; lists and refusals the router gives without one.
_BY_ENGINES = frozenset({"ok chat", "ok stream", "ok embedding"})


@dataclass(slots=True)
class Tally:
    """Counts while a run goes on. ``waits_s``: until the first byte of each answer."""

    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    violation_count: int = 0
    waits_s: list[float] = field(default_factory=list)

    @property
    def request_count(self) -> int:
        """How many requests have ended."""
        return sum(self.outcomes.values())

    def violate(self, what: str) -> None:
        """Note that something happened that must not happen."""
        self.violation_count += 1
        if len(self.violations) < VIOLATIONS_SHOWN_COUNT:
            self.violations.append(what)


@dataclass(slots=True)
class Leaks:
    """What is left that should be gone, each as readable text."""

    processes: list[str] = field(default_factory=list)
    descriptors: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """A finished run."""

    seed: int
    load_s: float
    tally: Tally
    leaks: Leaks
    engines_started_count: int = 0
    engine_kinds: Counter[str] = field(default_factory=Counter)
    rss_start_bytes: int = 0
    rss_end_bytes: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing was violated."""
        return self.tally.violation_count == 0

    def judge(self, rss_growth_max_bytes: int) -> None:
        """Count leaks and growth as violations."""
        for kind in ("processes", "descriptors", "sockets", "files"):
            for what in getattr(self.leaks, kind):
                self.tally.violate(f"leaked {kind}: {what}")
        grown_bytes = self.rss_end_bytes - self.rss_start_bytes
        if grown_bytes > rss_growth_max_bytes:
            self.tally.violate(f"the router has grown by {grown_bytes / _MIB:.0f} MiB")
        if not _BY_ENGINES & self.tally.outcomes.keys():
            self.tally.violate("not one request was answered well")

    def table(self) -> str:
        """Return the run as text, its violations last."""
        rows = [("seed", str(self.seed)), ("under load", f"{self.load_s:.0f} s")]
        rows.append(("requests", str(self.tally.request_count)))
        rows += [(f"  {name}", str(count)) for name, count in _sorted(self.tally.outcomes)]
        rows.append(("engines started", str(self.engines_started_count)))
        rows += [(f"  {name}", str(count)) for name, count in _sorted(self.engine_kinds)]
        rows += [
            (f"leaked {kind}", str(len(getattr(self.leaks, kind))))
            for kind in ("processes", "descriptors", "sockets", "files")
        ]
        waits_s = sorted(self.tally.waits_s)
        if waits_s:
            rows += [
                ("wait for a first byte, median", f"{waits_s[len(waits_s) // 2]:.3f} s"),
                ("wait, 99th percentile", f"{waits_s[len(waits_s) * 99 // 100]:.3f} s"),
                ("wait, worst", f"{waits_s[-1]:.3f} s"),
            ]
        rows += [
            ("router's memory, start", f"{self.rss_start_bytes / _MIB:.1f} MiB"),
            ("router's memory, end", f"{self.rss_end_bytes / _MIB:.1f} MiB"),
            ("violations", str(self.tally.violation_count)),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:>10}" for name, value in rows]
        lines += [f"VIOLATION: {text}" for text in self.tally.violations]
        hidden_count = self.tally.violation_count - len(self.tally.violations)
        if hidden_count:
            lines.append(f"… and {hidden_count} more")
        return "\n".join(lines)


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
