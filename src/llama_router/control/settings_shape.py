"""What of a model's settings may be changed over the network: a list of its own, typed.

Commands, environments, addresses and whatever else starts programs or names files is not in it: it
takes the config file. The engine's options are checked against the engine's own list.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer

from llama_router.control.shapes import LIST_MAX_COUNT, Json, Name, Order

_LONGEST_S = 10 * 365 * 24 * 3600.0
_COUNT_MAX = 1_000_000
_PRIORITY_LIMIT = 1000
_PARAMETERS_MAX_COUNT = 256
_PARAMETER_MAX_CHARS = 4096
_SIZE_MAX_CHARS = 64
_DESCRIPTION_MAX_CHARS = 16 * 1024
_VALUES_MAX_DEPTH = 10


def _whole(seconds: float) -> int | float:
    """Return 44 for 44.0: what is kept is to stand in the config as it was said."""
    return int(seconds) if seconds.is_integer() else seconds


def _not_too_deep(value: object) -> object:
    """Refuse what is nested so deep that its readers would have to recurse for long."""
    level: list[object] = [value]
    for _ in range(_VALUES_MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {_VALUES_MAX_DEPTH} levels")


_Values = Annotated[Json, BeforeValidator(_not_too_deep), Field(max_length=LIST_MAX_COUNT)]
_Scalar = bool | int | float | Annotated[str, Field(max_length=_PARAMETER_MAX_CHARS)]
_Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S), PlainSerializer(_whole)]
_SecondsOr0 = Annotated[float, Field(ge=0, le=_LONGEST_S), PlainSerializer(_whole)]
_Count = Annotated[int, Field(ge=0, le=_COUNT_MAX)]
_Size = int | Annotated[str, Field(max_length=_SIZE_MAX_CHARS)]


class FiltersPatch(Order):
    """What is changed in requests before the engine gets them."""

    strip_params: list[Name] = Field(default_factory=list, max_length=LIST_MAX_COUNT)
    set_params: _Values = Field(default_factory=dict)
    set_params_by_id: dict[Name, _Values] = Field(default_factory=dict, max_length=LIST_MAX_COUNT)


class SettingsPatch(Order):
    """Settings of a model, each as in the config file; null takes the change back."""

    parameters: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")],
                _Scalar
                | Annotated[
                    list[int | float | Annotated[str, Field(max_length=_PARAMETER_MAX_CHARS)]],
                    Field(min_length=1, max_length=LIST_MAX_COUNT),
                ]
                | None,
            ],
            Field(max_length=_PARAMETERS_MAX_COUNT),
        ]
        | None
    ) = None
    group: Annotated[str, Field(max_length=1024)] | None = None
    memory: _Size | Annotated[dict[Name, _Size], Field(max_length=64)] | None = None
    ttl_s: _SecondsOr0 | None = None
    pinned: bool | None = None
    priority: Annotated[int, Field(ge=-_PRIORITY_LIMIT, le=_PRIORITY_LIMIT)] | None = None
    max_in_flight: _Count | None = None
    max_waiting: _Count | None = None
    max_requests: _Count | None = None
    min_residency_s: _SecondsOr0 | None = None
    ready_timeout_s: _Seconds | None = None
    stop_grace_s: _Seconds | None = None
    connection_timeout_s: _Seconds | None = None
    read_timeout_s: _Seconds | None = None
    first_byte_timeout_s: _SecondsOr0 | None = None
    notify_model_swap: bool | None = None
    filters: FiltersPatch | None = None
    use_model_name: Annotated[str, Field(max_length=1024)] | None = None
    unlisted: bool | None = None
    title: Annotated[str, Field(max_length=1024)] | None = None
    description: Annotated[str, Field(max_length=_DESCRIPTION_MAX_CHARS)] | None = None
    metadata: _Values | None = None
    capabilities: _Values | None = None


def set_values(patch: SettingsPatch) -> dict[str, JsonValue]:
    """Return what a patch sets, as JSON has it; None for what it takes back."""
    found: dict[str, JsonValue] = patch.model_dump(exclude_unset=True, mode="json")
    return found
