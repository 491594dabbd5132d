"""What became of every key of another program's config, for the person who brings it along."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

# A config of a thousand models says the same of each: so many places are named, then counted.
_PLACES_SHOWN_COUNT = 3


class Fate(StrEnum):
    """What became of a key.

    ``HONOURED``: there is a setting that means the same. ``TRANSLATED``: the same is said in
    another way. ``NOT_CARRIED``: it has no effect here, or none is needed. ``UNKNOWN``: the other
    program does not know it either.
    """

    HONOURED = "honoured"
    TRANSLATED = "translated"
    NOT_CARRIED = "not carried"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one key at one place.

    ``pattern`` is its place with names left out, such as ``models.*.ttl``; ``native`` the setting
    here, if there is one; ``why`` is told of what has none, or what differs.
    """

    key: str
    line: int
    fate: Fate
    pattern: str = ""
    native: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All notes on one import. ``form`` says what the source is, such as ``llama-swap config``."""

    source: str
    form: str
    notes: tuple[Note, ...]

    def of(self, *fates: Fate) -> tuple[Note, ...]:
        """Return the notes on keys that had this fate."""
        return tuple(note for note in self.notes if note.fate in fates)

    @property
    def lost(self) -> tuple[Note, ...]:
        """What has no effect here."""
        return self.of(Fate.NOT_CARRIED, Fate.UNKNOWN)

    def as_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        notes = [{**asdict(note), "fate": note.fate.value} for note in self.notes]
        return {"source": self.source, "form": self.form, "notes": notes}

    def lines(self) -> Iterable[str]:
        """Say it in words: a summary, then each kind of key that had to be left out."""
        counts = {fate: len(self.of(fate)) for fate in Fate}
        told = ", ".join(f"{count} {fate.value}" for fate, count in counts.items() if count)
        yield f"{self.source}: {self.form}, {told or 'nothing in it'}"
        for fate in (Fate.TRANSLATED, Fate.NOT_CARRIED, Fate.UNKNOWN):
            yield from self._lines(fate)

    def _lines(self, fate: Fate) -> Iterable[str]:
        alike: dict[tuple[str, str, str], list[Note]] = {}
        for note in self.of(fate):
            if fate is not Fate.TRANSLATED or note.why:
                same = (note.pattern or note.key, note.native, note.why)
                alike.setdefault(same, []).append(note)
        for (pattern, native, why), notes in alike.items():
            shown = notes[0].key if len(notes) == 1 else pattern
            places = ", ".join(str(note.line) for note in notes[:_PLACES_SHOWN_COUNT] if note.line)
            more = len(notes) - _PLACES_SHOWN_COUNT
            where = f" (line {places}{f' and {more} more' if more > 0 else ''})" if places else ""
            became = f" -> {native}" if native else ""
            yield f"  {fate.value}: {shown}{where}{became}{f': {why}' if why else ''}"
