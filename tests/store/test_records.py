import pytest

from llama_router.store.records import FootprintKey, RequestRecord


def test_another_build_or_argument_is_another_footprint() -> None:
    keys = {FootprintKey("m", "a", "b1"), FootprintKey("m", "a", "b2"), FootprintKey("m", "c")}
    assert len(keys) == 3


def test_records_cannot_be_changed_once_handed_over() -> None:
    record = RequestRecord(time_s=1.0, model="m", total_s=1.0, end="-.-")
    with pytest.raises(AttributeError):
        record.model = "other"  # type: ignore[misc]  # what is tested
