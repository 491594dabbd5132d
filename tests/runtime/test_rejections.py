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
    assert (error.code, error.message) == (kind.value, "why")
    assert error.status == STATUS.get(kind, 503)
    assert error.retry_after_s == 2.5


@pytest.mark.parametrize("kind", RejectKind)
def test_only_what_passes_by_itself_is_worth_another_try(kind: RejectKind) -> None:
    passing = (RejectKind.SHUTTING_DOWN, RejectKind.QUEUE_FULL)
    assert error_for(kind, "why").should_retry is (kind in passing)
