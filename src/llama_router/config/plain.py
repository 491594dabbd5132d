"""Looking into the plain content of a config, of which any part may be faulty."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_router.config.problems import Keys

COMMAND_KEYS = frozenset({"command", "stop_command"})
"""What hold lists of arguments, wherever they stand."""


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> Sequence[Any]:
    """Return a list as it is, an empty one for anything else."""
    return value if isinstance(value, list | tuple) else ()


def texts_of(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, str]]:  # noqa: ANN401 - any value of a config
    """Yield all texts of a value that stands at ``keys``, each with its place."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_of(item, (*keys, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts_of(item, (*keys, index))
