import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder like tmp_path, for a router: its socket's path must fit into a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="lr-") as folder:
        yield Path(folder)
