"""The documents say what the code does: routes, error codes, states and the imports of rooms."""

import inspect
import re
from pathlib import Path

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


def test_every_documented_error_exists() -> None:
    text = (DOCS / "api.md").read_text()
    documented = set(re.findall(r"^\| \d+ \| `(\w+)` \|", text, re.MULTILINE))
    known = {
        kind.code
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RequestError)
    }
    assert documented - known == {"not_found", "method_not_allowed"}


def test_every_route_of_the_control_plane_is_documented() -> None:
    text = (DOCS / "api.md").read_text()
    app = create_app(None, version="0")  # type: ignore[arg-type]  # no route is called
    paths = {
        (method, re.sub(r"\{.*\}", "", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert len(paths) > 8
    missing = {(method, path) for method, path in paths if f"{method.upper()} {path}" not in text}
    assert missing == set()


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
