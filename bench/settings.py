"""What one run of the benchmarks measures, and where."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Settings:
    """One run. `peer_cpu` and `load_cpu` are None on a machine with a single core."""

    seconds: float
    rounds: int
    stream_counts: tuple[int, ...]
    connection_counts: tuple[int, ...]
    swap_pairs: int
    starts: int
    work_dir: Path
    peer_cpu: int | None
    load_cpu: int | None
    llama_server: Path | None
    nginx: Path | None
    router: tuple[str, ...] | None


def choose_cpus() -> tuple[int | None, int | None]:
    """Return the core for the peer and the core for load and engine."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or shutil.which("taskset") is None:
        return None, None
    return cpus[0], cpus[1]


def find_llama_server() -> Path | None:
    """Return the llama-server that scripts/build-llama-server built; None when it did not."""
    script = REPOSITORY / "scripts" / "build-llama-server"
    if not script.exists():
        return None
    result = subprocess.run(
        [str(script), "--path"], capture_output=True, text=True, timeout=10, check=False
    )
    path = Path(result.stdout.strip())
    return path if result.returncode == 0 and path.is_file() else None


def find_nginx() -> Path | None:
    """Return nginx, also where Debian keeps it outside an ordinary user's PATH."""
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("nginx", path=search)
    return Path(found) if found else None
