"""Median and spread over the rounds of one run."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median, the least and the greatest of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        """For a table: `median (low..high)`; the median alone when all rounds agree."""
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


@dataclass(frozen=True)
class Row:
    """The rounds of one peer in one setting: a list of values for each quantity, in order.

    A quantity's name carries its unit. The rows of one section have their rounds in step, so that
    a ratio is taken within a round.
    """

    peer: str
    setting: str
    values: dict[str, list[float]]

    def spread(self, name: str) -> Spread | None:
        """Of one quantity; None when it was not measured."""
        values = self.values.get(name)
        return Spread.of(values) if values else None


class Table:
    """Rows of one section, filled round by round."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, peer: str, setting: str, values: dict[str, float]) -> None:
        """Append one round's values."""
        row = self._rows.setdefault((peer, setting), Row(peer, setting, {}))
        for name, value in values.items():
            row.values.setdefault(name, []).append(value)

    def get(self, peer: str, setting: str) -> Row | None:
        """The row of one peer in one setting, if it was measured."""
        return self._rows.get((peer, setting))

    def rows(self) -> list[Row]:
        """All rows, by setting in the order measured, then by peer."""
        settings = list(dict.fromkeys(row.setting for row in self._rows.values()))
        return sorted(self._rows.values(), key=lambda row: settings.index(row.setting))

    def subtract(self, name: str, floor: str, result: str) -> None:
        """Add `result` = `name` minus the same of the peer `floor`, round by round."""
        for row in self._rows.values():
            base = self.get(floor, row.setting)
            if base is not None and row.peer != floor:
                pairs = zip(row.values.get(name, ()), base.values.get(name, ()), strict=False)
                row.values[result] = [value - least for value, least in pairs]


def ratios(above: Row | None, below: Row | None, name: str) -> list[float]:
    """The quotients of a quantity, round by round; empty when one side was not measured."""
    if above is None or below is None:
        return []
    pairs = zip(above.values.get(name, ()), below.values.get(name, ()), strict=False)
    return [value / base for value, base in pairs if base > 0]
