import pytest

from llama_router.core.commands import RejectKind
from llama_router.runtime.rejections import error_for

STATUS = {
    RejectKind.MODEL_NOT_FOUND: 404,
    RejectKind.LOAD_TIMEOUT: 504,
    RejectKind.QUEUE_FULL: 429,
    RejectKind.ENGINE_CRASHED: 502,
}


@pytest.mark.parametrize("kind", RejectKind)
def test_each_kind_has_its_status_and_its_own_name_as_code(kind: RejectKind) -> None:
    error = error_for(kind, "why", 2.5)
    assert error.code == kind.value
    assert error.status == STATUS.get(kind, 503)
    assert error.retry_after_s == 2.5


@pytest.mark.parametrize("kind", RejectKind)
def test_only_what_passes_by_itself_is_worth_another_try(kind: RejectKind) -> None:
    passing = (RejectKind.SHUTTING_DOWN, RejectKind.QUEUE_FULL)
    expected = None if kind is RejectKind.MODEL_NOT_FOUND else kind in passing
    assert error_for(kind, "why").should_retry is expected


@pytest.mark.parametrize("kind", RejectKind)
def test_the_reason_comes_first_and_then_what_to_do(kind: RejectKind) -> None:
    # These two say it in the core's own words.
    if kind in (RejectKind.MODEL_STUCK, RejectKind.DOES_NOT_FIT):
        assert error_for(kind, "why").message == "why"
        return
    message = error_for(kind, "why it is so.").message
    assert message.startswith("why it is so. ")
    assert len(message) > len("why it is so. ") + 10
    assert ".." not in message
