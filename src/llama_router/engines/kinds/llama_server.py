"""llama.cpp's own server, found on this machine or named by its path."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from llama_router.engines.environment import without_hub_tokens
from llama_router.engines.kinds.base import EngineKind, Prepared
from llama_router.engines.launch import Readiness

# In a command, exactly this word means "the engine found": see registry.py.
LLAMA_SERVER = "llama-server"

# llama-server speaks to a router over its pipes when this variable is set (llama.cpp,
# tools/server/server.cpp and server-models.cpp). Its value was the port of the router's HTTP server
# in the few builds before llama.cpp PR 18110 (December 2025) and has been ignored ever since.
#
# Readiness is PUSHED without asking the binary whether it can: its version does not tell (a build
# from a source archive says "b0-unknown"), and starting it to read its --help costs what a whole
# load of a small model costs. So PUSHED is a hope, not a promise, and who watches the engine probes
# too as long as no state line has come: builds without the router mode ignore the variable, and
# builds before llama.cpp PR 24821 (June 2026) say "cmd_child_to_router:ready" and nothing else.
#
# The exit line is a request, too: llama-server reads it only once its model is loaded, and one that
# comes between the ready line and the start of its main loop is lost.
PUSH_VARIABLE = "LLAMA_SERVER_ROUTER_PORT"
_PUSH_VALUE = "0"

# llama-server reads each of its options from the environment too. These, beyond what no engine
# inherits (engines/environment.py), would put it behind a key file, TLS or a path prefix, or give
# it another model than the one asked for. All others are the user's to set.
_MISLEADING = frozenset(
    {
        "LLAMA_ARG_ALIAS",
        "LLAMA_ARG_API_KEY_FILE",
        "LLAMA_ARG_API_PREFIX",
        "LLAMA_ARG_DOCKER_REPO",
        "LLAMA_ARG_HF_FILE",
        "LLAMA_ARG_HF_REPO",
        "LLAMA_ARG_MMPROJ",
        "LLAMA_ARG_MMPROJ_URL",
        "LLAMA_ARG_MODEL_URL",
        "LLAMA_ARG_REUSE_PORT",
        "LLAMA_ARG_SSL_CERT_FILE",
        "LLAMA_ARG_SSL_KEY_FILE",
        # Set when the router is itself a llama-server's child: not this engine's business.
        "LLAMA_SERVER_CHILD_MODE",
    }
)

# Its options that name what is on Hugging Face: -hf, --hf-repo, -hfd, --spec-draft-hf …, and those
# that take a URL, to which it shows the token, too.
_HUB_OPTION = re.compile(r"--?(([a-z]+-){0,4}hf[a-z-]*|mm?u|(model|mmproj)-url)(=.*)?", re.DOTALL)

_PROGRAM_NAMES = frozenset({"llama-server", "llama-server.exe"})


def find_llama_server(router_executable: Path, *, search_path: str | None = None) -> Path | None:
    """Find llama-server beside ``router_executable``, else on PATH (``search_path`` for tests).

    "Beside" is tried where the name leads first and where the file really is second, because
    installers link commands into a directory of their own. Reads directories: not for the event
    loop.
    """
    beside = dict.fromkeys((router_executable.parent, _resolved(router_executable).parent))
    for directory in beside:
        found = shutil.which(LLAMA_SERVER, path=str(directory))
        if found is not None:
            return Path(found).absolute()
    found = shutil.which(LLAMA_SERVER, path=search_path)
    return None if found is None else Path(found).absolute()


def is_llama_server(program: str) -> bool:
    """Tell by its file name whether a program is a llama-server."""
    return PurePath(program).name.lower() in _PROGRAM_NAMES


def llama_environment(argv: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Give the environment in which llama.cpp's server obeys its flags and reports to us.

    It has the person's token for Hugging Face only if its command is to download from there.
    """
    if not any(map(_HUB_OPTION.fullmatch, argv[1:])):
        env = without_hub_tokens(env)
    kept = {name: value for name, value in env.items() if name.upper() not in _MISLEADING}
    return {**kept, PUSH_VARIABLE: _PUSH_VALUE}


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _claims(argv: Sequence[str]) -> bool:
    return is_llama_server(argv[0])


def _prepare(argv: tuple[str, ...], env: Mapping[str, str]) -> Prepared:
    return Prepared(argv=argv, env=llama_environment(argv, env), readiness=Readiness.PUSHED)


KIND = EngineKind(name="llama-server", claims=_claims, prepare=_prepare)
