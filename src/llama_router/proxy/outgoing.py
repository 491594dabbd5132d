"""The head of a request as it goes out, put together from parts that were worked out before."""

from llama_router.proxy.prepared import PreparedRequest
from llama_router.proxy.upstream import Upstream


def request_head(
    prepared: PreparedRequest,
    path: bytes,
    upstream: Upstream,
    size_bytes: int,
    form_type: bytes | None = None,
    is_own: bool = False,  # noqa: FBT001, FBT002  # by position: each request asks for one
) -> bytes:
    """Return the head that an engine gets.

    ``form_type`` is the Content-Type of a form written anew. ``is_own``: the router itself answers.
    """
    line, head, fields, extra = prepared.line, prepared.head, prepared.fields, upstream.head_fields
    if upstream.is_remote:
        fields = prepared.foreign_fields
        path = upstream.path_prefix + path if upstream.path_prefix else path
    elif is_own:
        extra += prepared.control_fields
    if form_type is not None and prepared.form_type is not None:
        fields = _with_form_type(fields, prepared.form_type, form_type)
    if path is not head.path:
        target = b"%b?%b" % (path, head.query) if head.query else path
        line = b"%b %b HTTP/1.1\r\n" % (head.method, target)
    length = b"content-length: %d\r\n\r\n" % size_bytes if prepared.has_body else b"\r\n"
    return b"".join((line, extra, fields, length))


def _with_form_type(fields: bytes, old: bytes, new: bytes) -> bytes:
    """Return ``fields`` with another Content-Type in the place of ``old``, which is there once."""
    lines = b"\r\n" + fields
    before = b"\r\ncontent-type: %b\r\n" % old
    return lines.replace(before, b"\r\ncontent-type: %b\r\n" % new, 1)[2:]
