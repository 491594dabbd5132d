"""Errors by whoever was to answer: an engine, a server on another machine, the router itself."""

from llama_router.proxy.errors import (
    LOG_HINT,
    BadUpstreamError,
    EngineCrashedError,
    InternalError,
    PeerUnavailableError,
    RequestError,
)
from llama_router.proxy.head import ResponseHead
from llama_router.proxy.upstream import Upstream

_NOT_MODIFIED = 304
_KEY_REFUSALS = (401, 407)


def blamed(
    kind: type[RequestError], text: str, upstream: Upstream | None, *, is_own: bool
) -> RequestError:
    """Return an error of this kind, or of that which it is when it is not an engine's.

    ``text`` has ``{who}`` where it says who it was.
    """
    if is_own:
        return InternalError("the router's own API did not answer; its log may say more")
    if upstream is None or not upstream.is_remote:
        hint = "" if kind is BadUpstreamError else LOG_HINT
        return kind(text.replace("{who}", "the engine") + hint)
    if kind is EngineCrashedError:
        kind = PeerUnavailableError
    return kind(text.replace("{who}", upstream.label))


def refuse_remote(head: ResponseHead, upstream: Upstream) -> RequestError | None:
    """Return why an answer of a remote server is not passed on, None if it can be.

    A client that followed a redirect would show its key elsewhere, and one that was told of a wrong
    key would look for the mistake in its own; such answers may even quote the key.
    """
    status = head.status
    if status in _KEY_REFUSALS:
        return BadUpstreamError(
            f"{upstream.label} does not take the key that it is sent ({status}); see its api_key"
        )
    if 300 <= status < 400 and status != _NOT_MODIFIED:  # noqa: PLR2004
        return BadUpstreamError(
            f"{upstream.label} answered with a redirect ({status}), which is not followed; see its"
            " url"
        )
    return None
