"""The kinds of engines: one file each, listed in registry.py."""

from llama_router.engines.kinds.command import (
    CommandError,
    CommandTemplate,
    ModelFacts,
    check_command,
)
from llama_router.engines.kinds.llama_server import find_llama_server
from llama_router.engines.kinds.registry import (
    build_launch,
    kind_of,
    purpose_arguments,
)

__all__ = [
    "CommandError",
    "CommandTemplate",
    "ModelFacts",
    "build_launch",
    "check_command",
    "find_llama_server",
    "kind_of",
    "purpose_arguments",
]
