"""The documents say what the code does: routes, error codes, states and the imports of rooms."""

import inspect
import re
from pathlib import Path
from typing import Any

from llama_router.control.app import create_app
from llama_router.core.states import diagram
from llama_router.proxy import errors
from llama_router.proxy.routes import UNVERSIONED_POSTS

DOCS = Path(__file__).parent.parent / "docs"


def test_every_error_kind_is_documented_with_its_status() -> None:
    text = (DOCS / "api.md").read_text()
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RequestError) and kind is not errors.RequestError
    ]
    assert len(kinds) > 20
    missing = {
        (kind.status, kind.code)
        for kind in kinds
        if f"| {kind.status} | `{kind.code}` |" not in text
    }
    assert missing == set()


def control_errors() -> set[tuple[str, str]]:
    """Give the statuses and codes that the control plane's side says no with."""
    source = Path(inspect.getfile(errors)).parents[1]
    found = set()
    for room in ("control", "runtime"):
        for path in (source / room).glob("*.py"):
            text = path.read_text()
            found |= set(re.findall(r'ControlError\(\s*(\d+), "(\w+)"', text))
            found |= set(re.findall(r'error_response\(\s*(\d+), "(\w+)"', text))
            if path.name == "bridge_downloads.py":
                found |= set(re.findall(r'\((\d+), "(\w+)"\)', text))
    return found


def documented_errors() -> set[tuple[str, str]]:
    text = (DOCS / "api.md").read_text()
    return {
        (status, code)
        for status, codes in re.findall(r"^\| (\d+) \| (`[^|]+`) \|", text, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }


def test_every_documented_error_exists() -> None:
    known = {
        (str(kind.status), kind.code)
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RequestError)
    }
    assert documented_errors() - known - control_errors() == set()


def test_every_error_of_the_control_plane_is_documented() -> None:
    assert len(control_errors()) > 15
    assert control_errors() - documented_errors() == set()


def test_every_route_of_the_control_plane_is_documented() -> None:
    text = re.sub(r"\{[^}]*\}", "{}", (DOCS / "api.md").read_text())
    nobody: Any = object()  # No route is called.
    app = create_app(
        nobody,
        version="0",
        configuration=nobody,
        settings=nobody,
        profiles=nobody,
        keys=nobody,
        downloads=nobody,
    )
    paths = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert len(paths) > 30
    assert {one for one in paths if f"{one[0]} {one[1]}" not in text} == set()


def test_every_unversioned_inference_route_is_documented() -> None:
    text = (DOCS / "api.md").read_text()
    missing = {
        path.decode()
        for path in UNVERSIONED_POSTS
        if f"`{path.decode()}`" not in text and f"`POST {path.decode()}`" not in text
    }
    assert missing == {"/chat/completions/input_tokens", "/responses/input_tokens"}


def test_the_state_diagram_is_the_table() -> None:
    assert f"```mermaid\n{diagram()}```" in (DOCS / "architecture.md").read_text()
