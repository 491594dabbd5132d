import inspect

import msgspec
import pytest

from llama_router.control.facade import ControlError, Facade, ModelInfo, RouterInfo
from llama_router.runtime.bridge import Bridge


def test_the_runtimes_bridge_offers_all_that_the_facade_promises() -> None:
    for name, promised in inspect.getmembers(Facade, inspect.isfunction):
        if name.startswith("_"):
            continue
        offered = getattr(Bridge, name)
        assert inspect.signature(offered) == inspect.signature(promised), name
        assert inspect.iscoroutinefunction(offered) == inspect.iscoroutinefunction(promised), name


def test_an_error_carries_what_its_answer_needs() -> None:
    error = ControlError(404, "model_not_found", "there is none")
    assert (error.status, error.code, str(error)) == (404, "model_not_found", "there is none")


@pytest.mark.parametrize("kind", [ModelInfo, RouterInfo])
def test_what_crosses_threads_cannot_be_changed(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
