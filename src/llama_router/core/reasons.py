"""What clients and operators are told when a model is not available."""

from typing import Final

from llama_router.core.model import Model

SHUTTING_DOWN: Final = "The router is shutting down"


def not_found(name: str) -> str:
    """Say that a model is unknown."""
    return f"There is no model '{name}'"


def given_up(model: Model) -> str:
    """Say why a FAILED model is not started."""
    return (
        f"Model '{model.name}' crashed too often and is not started again for now; "
        f"the last error was: {model.last_error}"
    )


def backing_off(model: Model) -> str:
    """Say why a COOLING model is not started."""
    return f"Model '{model.name}' crashed and is started again after a pause: {model.last_error}"


def stuck(model: Model) -> str:
    """Say why a STUCK model is not started."""
    return (
        f"The engine of model '{model.name}' was killed but the system does not let go of it "
        "(a hanging driver or disk?); the model is unavailable until it does"
    )


def queue_full(model: Model, limit_count: int) -> str:
    """Say why a newcomer cannot wait."""
    return f"{limit_count} requests wait for model '{model.name}' already; try again later"
