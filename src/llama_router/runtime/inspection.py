"""Whether an engine could be started at all: looked at before another model goes for its sake.

Everything here reads the disk: not for the event loop.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_router.engines.kinds import kind_of
from llama_router.engines.launch import LaunchSpec
from llama_router.runtime.roster import RosterModel

# The kinds of engines that read GGUF files themselves.
LLAMA_KINDS = frozenset({"llama-server", "embedded"})
_MAGIC = b"GGUF"


def problem_of(model: RosterModel, launch: LaunchSpec) -> str:
    """Say why the engine cannot be started, for people; "" when nothing speaks against it.

    Looks at the program, and at all files of the model. Takes no time to speak of.
    """
    return _program_problem(launch) or _files_problem(model, launch.argv)


def _program_problem(launch: LaunchSpec) -> str:
    program = launch.argv[0]
    if os.path.dirname(program) == "":  # noqa: PTH120  # "./x" has one, which Path forgets
        if shutil.which(program, path=launch.env.get("PATH")) is None:
            return f"there is no program {program} on PATH; install it or give its whole path"
        return ""
    if not os.path.exists(program):  # noqa: PTH110  # Path's raises
        return f"its program {program} does not exist"
    if not os.path.isfile(program) or not os.access(program, os.X_OK):  # noqa: PTH113  # as above
        return f"its program {program} is not executable"
    return ""


def _files_problem(model: RosterModel, argv: Sequence[str]) -> str:
    found = model.found
    files = [*(found.parts or ([found.path] if found.path else []))]
    if found.mmproj is not None:
        files.append(found.mmproj)
    must_be_gguf = kind_of(argv).name in LLAMA_KINDS
    for file in files:
        problem = _file_problem(file, must_be_gguf=must_be_gguf)
        if problem:
            return problem
    return ""


def _file_problem(file: Path, *, must_be_gguf: bool) -> str:
    try:
        if file.is_dir():
            # Engines other than llama.cpp's have models in folders.
            return f"{file} is a folder" if must_be_gguf else ""
        with file.open("rb") as opened:
            magic = opened.read(len(_MAGIC))
    except FileNotFoundError:
        return f"the model's file {file} is gone"
    except OSError as error:
        return f"the model's file {file} cannot be read: {error.strerror or error}"
    if must_be_gguf and magic != _MAGIC:
        return f"{file} is no GGUF file any more"
    return ""
