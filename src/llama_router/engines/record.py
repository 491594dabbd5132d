"""The guardian's record of what it runs: a small file for the next start of the router.

It lets :mod:`llama_router.engines.leftovers` end engines whose router and guardian were both
killed. Standard library only: the guardian imports this.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE_PREFIX = "engines-"
FILE_SUFFIX = ".json"
# Put into the environment of every engine as "<cookie>:<generation>", inherited by all that it
# starts: how strays are recognised.
MARK_VARIABLE = "LLAMA_ROUTER_ENGINE"

# Ours are a few hundred bytes per engine; anything large is not ours.
MAX_RECORD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ProcessRecord:
    """One process, told apart from a later one with the same pid by its start time."""

    pid: int
    start_time: str
    model: str = ""


@dataclass
class GuardianRecord:
    """What one guardian runs, in one boot of the machine."""

    boot_id: str
    cookie: str
    guardian: ProcessRecord
    engines: list[ProcessRecord] = field(default_factory=list)


def record_path(state_dir: Path, cookie: str) -> Path:
    """Return where the guardian with ``cookie`` keeps its record."""
    return state_dir / f"{FILE_PREFIX}{cookie}{FILE_SUFFIX}"


def mark_of(cookie: str, generation: int | None = None) -> bytes:
    """Return the environment entry of an engine, or the part that all engines of ``cookie`` share.

    An engine's whole entry ends with the NUL that separates entries.
    """
    common = f"{MARK_VARIABLE}={cookie}:"
    return common.encode() if generation is None else f"{common}{generation}\0".encode()


def write_record(path: Path, record: GuardianRecord) -> None:
    """Replace the file in one step. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")
    temporary.replace(path)


def read_record(path: Path) -> GuardianRecord | None:
    """Read a record; None when the file is gone or is not one of ours."""
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return None
        raw = json.loads(path.read_bytes())
        return GuardianRecord(
            boot_id=_text(raw["boot_id"]),
            cookie=_text(raw["cookie"]),
            guardian=_process(raw["guardian"]),
            engines=[_process(engine) for engine in raw["engines"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _process(raw: dict[str, object]) -> ProcessRecord:
    pid = raw["pid"]
    # 0 and negative numbers would mean process groups to kill(2), 1 is init.
    if not isinstance(pid, int) or pid <= 1:
        raise ValueError("not a pid")
    return ProcessRecord(pid=pid, start_time=_text(raw["start_time"]), model=_text(raw["model"]))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("not text")
    return value
