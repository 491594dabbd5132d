"""How often the kernel has killed a process for want of memory: whether it was the kernel."""

import re
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
_MAX_VMSTAT_CHARS = 64 * 1024
# Linux 4.13; those for the limit of a control group are counted too (mm/oom_kill.c).
_COUNT = re.compile(r"^oom_kill ([0-9]{1,19})$", re.MULTILINE)


def oom_kill_count(vmstat: Path = _VMSTAT) -> int | None:
    """Return the count since boot; None where no system tells.

    A read of a file that the kernel makes: quick enough for an event loop.
    """
    try:
        with vmstat.open(encoding="ascii", errors="replace") as file:
            match = _COUNT.search(file.read(_MAX_VMSTAT_CHARS))
    except OSError:
        return None
    return int(match[1]) if match else None
