"""What every section of the config file is: frozen, strict, without unknown keys."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

_T = TypeVar("_T", bound=BaseModel)


class Section(BaseModel):
    """One section: ``"8082"`` is no port, and a key that nobody knows is a fault."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


def merged(section: _T, changes: dict[str, Any]) -> _T:
    """Give ``section`` with some fields replaced by values that were validated before."""
    return section.model_copy(update=changes) if changes else section
