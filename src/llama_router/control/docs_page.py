"""A page over the API's own description; everything that it needs comes from here."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

# Scripts and styles of this origin and nothing else, in no frame: whatever a model is called.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_PARTS = {
    "/admin/docs": ("docs.html", "text/html; charset=utf-8"),
    "/admin/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/admin/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
}


def add_docs_page(app: FastAPI) -> None:
    """Add ``/admin/docs``, which shows what ``/openapi.json`` says."""
    pages = files("llama_router.control") / "pages"
    for path, (name, media_type) in _PARTS.items():
        content = (pages / name).read_bytes()
        _add(app, path, content, media_type)


def _add(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    @app.get(path, include_in_schema=False)
    async def part() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)
