"""Putting settings onto xllamacpp's parameters."""

from types import ModuleType
from typing import Any

from llama_router.engines.embedded.flags import Adapter, Constant, FlagError, Settings

_MARK_PREFIX = "COMMON_PARAMS_SAMPLING_CONFIG_"


def make_parameters(xllamacpp: ModuleType, settings: Settings) -> Any:  # noqa: ANN401 - untyped
    """Make the ``CommonParams`` for ``settings``. Raises FlagError for a value it does not take."""
    parameters = xllamacpp.CommonParams()
    # llama-server chooses the number of slots itself unless told; CommonParams starts from 1.
    parameters.n_parallel = -1
    for path, value in settings.values.items():
        owner = parameters
        *owners, name = path.split(".")
        for step in owners:
            owner = getattr(owner, step)
        try:
            setattr(owner, name, _native(xllamacpp, name, value, getattr(owner, name)))
        except (AssertionError, AttributeError, OverflowError, TypeError, ValueError) as error:
            raise FlagError(f"llama.cpp refuses {value!r} for {path}: {error}") from None
    bits = xllamacpp.common_params_sampling_config.__members__
    for mark in settings.marks:
        parameters.sampling.user_sampling_config |= int(bits[_MARK_PREFIX + mark].value)
    return parameters


def _native(xllamacpp: ModuleType, name: str, value: object, current: Any) -> object:  # noqa: ANN401 - untyped
    """Turn a setting into what the attribute ``name`` takes; ``current`` is what it holds."""
    if isinstance(value, Constant):
        return _native_item(xllamacpp, value)
    if not isinstance(value, tuple):
        return value
    items = [_native_item(xllamacpp, item) for item in value]
    if name == "tensor_buft_overrides":
        return ",".join(str(item) for item in items)
    if name == "tensor_split":
        if len(items) > len(current):
            raise ValueError(f"there are at most {len(current)} devices")
        return [*items, *current[len(items) :]]
    if name == "fit_params_target":
        # As in llama.cpp, one value stands for all devices.
        return items * len(current) if len(items) == 1 else [*items, *current[len(items) :]]
    return set(items) if isinstance(current, set) else items


def _native_item(xllamacpp: ModuleType, item: object) -> object:
    if isinstance(item, Constant):
        return getattr(getattr(xllamacpp, item.enumeration), item.member)
    if isinstance(item, Adapter):
        return xllamacpp.CommonAdapterLoraInfo(item.path, item.scale)
    return item
