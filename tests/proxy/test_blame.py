import pytest

from llama_router.proxy.blame import blamed, refuse_remote
from llama_router.proxy.errors import (
    BadUpstreamError,
    EngineCrashedError,
    EngineTimeoutError,
    InternalError,
    PeerUnavailableError,
)
from llama_router.proxy.head import parse_response_head
from llama_router.proxy.upstream import Upstream


def upstream(*, is_remote: bool = False) -> Upstream:
    return Upstream(port=1, connect_timeout_s=1.0, is_remote=is_remote, label="peer 'x'")


@pytest.mark.asyncio
async def test_who_was_to_answer_is_to_blame() -> None:
    near, far = upstream(), upstream(is_remote=True)
    text = "{who} went away"
    found = blamed(EngineCrashedError, text, near, is_own=False)
    assert type(found) is EngineCrashedError
    assert found.message.startswith("the engine went away; its log")
    found = blamed(EngineCrashedError, text, far, is_own=False)
    assert type(found) is PeerUnavailableError
    assert found.message == "peer 'x' went away"
    assert type(blamed(EngineTimeoutError, text, far, is_own=False)) is EngineTimeoutError
    assert blamed(BadUpstreamError, text, near, is_own=False).message == "the engine went away"
    own = blamed(EngineCrashedError, text, near, is_own=True)
    assert type(own) is InternalError
    assert "engine" not in own.message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "is_refused"),
    [(200, False), (204, False), (304, False), (307, True), (401, True), (403, False), (407, True)],
)
async def test_what_could_mislead_a_client_is_not_passed_on(
    status: int, *, is_refused: bool
) -> None:
    head = parse_response_head(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
    assert (refuse_remote(head, upstream(is_remote=True)) is not None) is is_refused
