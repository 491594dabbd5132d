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


def does_not_fit(model: Model, beside: str = "") -> str:
    """Say that the memory cannot hold a model, alone or beside what stays in it."""
    need = ", ".join(f"{part.size_bytes / 1e9:.1f} GB of {part.device}" for part in model.memory)
    why = "its engine ran out of memory, and it" if model.ran_out else "it"
    return (
        f"Model '{model.name}' does not fit: {why} needs {need or 'memory'}, which is more than "
        f"there can be free{beside}. Give it less context or free memory for it"
    )


def queue_full(model: Model) -> str:
    """Say that too many wait already."""
    return f"Too many requests wait for model '{model.name}' already ({len(model.waiting)})"


def too_many(model: Model) -> str:
    """Say that as many run and wait as may."""
    return f"Model '{model.name}' has {model.spec.max_requests} requests already, as many as it may"


def queue_timeout(model: Model, limit_s: float) -> str:
    """Say that a request has waited for too long."""
    return f"Model '{model.name}' had no time for the request within {limit_s:g} s"
