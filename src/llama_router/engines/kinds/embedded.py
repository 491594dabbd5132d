"""llama.cpp inside a Python process of its own: for machines without a llama-server."""

import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence

from llama_router.engines.kinds.base import EngineKind, Prepared
from llama_router.engines.kinds.llama_server import llama_environment
from llama_router.engines.launch import Readiness

_MODULE = "llama_router.engines.embedded"


@functools.cache
def embedded_available() -> bool:
    """Tell whether this machine has the embedded engine, without loading it."""
    return importlib.util.find_spec("xllamacpp") is not None


def embedded_command(flags: Sequence[str]) -> tuple[str, ...]:
    """Give the command that runs the embedded engine with llama-server's ``flags``.

    -P keeps the working directory off the module search path, where a stranger's file could stand
    in for ours.
    """
    return (sys.executable, "-P", "-m", _MODULE, *flags)


def _claims(argv: Sequence[str]) -> bool:
    return tuple(argv[1:4]) == embedded_command(())[1:]


def _prepare(argv: tuple[str, ...], env: Mapping[str, str]) -> Prepared:
    return Prepared(argv=argv, env=llama_environment(argv, env), readiness=Readiness.PUSHED)


KIND = EngineKind(name="embedded", claims=_claims, prepare=_prepare)
