"""What differs between operating systems: the selection.

Standard library only, but for Windows: the guardian imports this.
"""

import sys

from llama_router.engines.platform.interface import ProcessTable


def process_table() -> ProcessTable:
    """Return the process table of this POSIX system. Raises NotImplementedError elsewhere."""
    if sys.platform == "linux":
        from llama_router.engines.platform.linux import LinuxProcessTable

        return LinuxProcessTable()
    elif sys.platform == "darwin":  # noqa: RET505 - an else that is skipped, not unreachable
        from llama_router.engines.platform.darwin import DarwinProcessTable

        return DarwinProcessTable()
    else:
        raise NotImplementedError(f"no process supervision for {sys.platform} yet")
