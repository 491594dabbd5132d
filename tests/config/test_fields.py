import pytest
from pydantic import TypeAdapter, ValidationError

from llama_router.config.fields import (
    DEVICES_MAX_COUNT,
    LONGEST_S,
    SizeOrSizes,
    Sizes,
    check_name,
    duration,
)

SIZES = TypeAdapter[dict[str, int]](Sizes)
SIZE_OR_SIZES = TypeAdapter[object](SizeOrSizes)


def test_a_name_can_be_shown() -> None:
    assert check_name("user/repo:Q4 K") == "user/repo:Q4 K"
    for name in (" a", "a ", "a\tb", "\u202e"):
        with pytest.raises(ValueError, match="must not"):
            check_name(name)


def test_a_device_is_named_once_in_whatever_case() -> None:
    with pytest.raises(ValidationError, match="one device more than once: CUDA0, cuda0"):
        SIZES.validate_python({"CUDA0": "1GiB", "cpu": "1GiB", "cuda0": "1GiB"})


def test_there_is_an_end_to_the_devices() -> None:
    assert len(SIZES.validate_python({f"cuda{n}": "1GiB" for n in range(DEVICES_MAX_COUNT)})) == 64
    with pytest.raises(ValidationError):
        SIZES.validate_python({f"cuda{n}": "1GiB" for n in range(DEVICES_MAX_COUNT + 1)})


@pytest.mark.parametrize("value", [{"cpu": 5}, {5: "1GiB"}, {"cpu": {"cpu": 1}}, [], None, "x"])
def test_neither_one_size_nor_sizes_is_a_fault(value: object) -> None:
    with pytest.raises(ValidationError):
        SIZE_OR_SIZES.validate_python(value)


def test_a_duration_has_bounds_and_its_unit() -> None:
    positive, any_time = duration(5, "Some."), duration(None, "Some.", can_be_0=True)
    assert (positive.default, positive.json_schema_extra) == (5.0, {"unit": "s"})
    assert isinstance(positive.default, float)
    assert any_time.default is None
    limits = [str(limit) for limit in (*positive.metadata, *any_time.metadata)]
    assert {"Gt(gt=0)", "Ge(ge=0)", f"Le(le={LONGEST_S})"} <= set(limits)
