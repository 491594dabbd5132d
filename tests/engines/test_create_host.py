import sys
from pathlib import Path
from unittest.mock import Mock

from llama_router.engines.create_host import create_host
from llama_router.engines.host import HostListener


def test_each_system_has_its_host(tmp_path: Path) -> None:
    host = create_host(Mock(spec=HostListener), tmp_path)
    expected = "JobHost" if sys.platform == "win32" else "GuardianClient"
    assert type(host).__name__ == expected
