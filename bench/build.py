"""Compile the C tools on demand, into a cache outside the tree."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE_DIR = Path(__file__).parent / "c"
TOOLS = ("stub_engine", "stream_load", "rate_load")
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
# A tool compiles in half a second; a compiler that takes this long hangs.
COMPILE_TIMEOUT_S = 60.0


class BuildError(Exception):
    """A tool cannot be compiled; the text says why."""


def cache_dir() -> Path:
    """Where compiled tools are kept: `$XDG_CACHE_HOME/llama-router-bench`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama-router-bench"


def tool(name: str, *, cache: Path | None = None) -> Path:
    """Return the path of the compiled tool `name`; compile it when its sources are new.

    Raises BuildError when there is no C compiler or the source does not compile.
    """
    source = SOURCE_DIR / f"{name}.c"
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for part in (SOURCE_DIR / "common.h", source):
        digest.update(part.read_bytes())
    target = (cache or cache_dir()) / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildError(f"bench: compiling {source.name} needs a C compiler (cc, or $CC)")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Compiled aside and renamed: two runs at a time both end with a whole file.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / name
        result = subprocess.run(
            [compiler, *FLAGS, "-o", str(made), str(source)],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            raise BuildError(f"bench: {source.name} does not compile:\n{result.stderr}")
        made.rename(target)
    return target
