"""Choosing the host of engine processes for this operating system."""

import sys
from pathlib import Path

from llama_router.engines.host import EngineHost, HostListener


def create_host(listener: HostListener, state_dir: Path) -> EngineHost:
    """Return the host that reports to ``listener`` and keeps its record in ``state_dir``."""
    if sys.platform == "win32":
        from llama_router.engines.platform.windows import JobHost

        return JobHost(listener)
    else:  # noqa: RET505 - an else that is skipped, not unreachable
        from llama_router.engines.guardian_client import GuardianClient

        return GuardianClient(listener, state_dir)
