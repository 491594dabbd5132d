"""The engines that tests run against, and what is said when one is missing."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_BUILD_SCRIPT = _ROOT / "scripts" / "build-llama-server"
_VARIABLE = "LLAMA_ROUTER_TEST_LLAMA_SERVER"
_SCRIPT_TIMEOUT_S = 10


def llama_server_path() -> Path:
    """Give the llama-server to test with; skips the test without one, or fails it in CI."""
    given = os.environ.get(_VARIABLE, "")
    if not given and _BUILD_SCRIPT.exists():
        # Says where it would be; builds nothing.
        given = subprocess.run(
            [_BUILD_SCRIPT, "--path"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SCRIPT_TIMEOUT_S,
        ).stdout.strip()
    path = Path(given)
    if not given or not os.access(path, os.X_OK):
        _missing(f"no llama-server at {given!r}: run scripts/build-llama-server or set {_VARIABLE}")
    return path


def embedded_available() -> bool:
    """Tell whether the embedded engine is installed; fails the test when it is not in CI."""
    available = importlib.util.find_spec("xllamacpp") is not None
    if not available and _in_ci():
        _missing("the embedded engine (xllamacpp) is not installed")
    return available


def need_embedded() -> None:
    """Skip the test where the embedded engine is not installed; fail it in CI."""
    if not embedded_available():
        _missing("the embedded engine (xllamacpp) is not installed")


def _missing(reason: str) -> None:
    if _in_ci():
        pytest.fail(reason)
    pytest.skip(reason)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")
