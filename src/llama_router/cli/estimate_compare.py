"""``llama-router estimate --compare``: llama.cpp's ``llama-fit-params`` beside the estimate."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_router.catalog.footprint import Footprint
from llama_router.catalog.footprint_fit import Parts, estimated_parts

FIT_PARAMS = "llama-fit-params"
# A second is usual; a large model on a slow disk takes longer.
TIMEOUT_S = 60.0
_MAX_OUTPUT_BYTES = 1 << 20  # some lines for each device, and a log beside them
_LOOK_INTERVAL_S = 0.02
_END_TIMEOUT_S = 5.0
_MAX_REASON_CHARS = 200
_MIB_BYTES = 2**20
# Settings of llama-server in the environment are in the arguments already.
_SETTING_PREFIX = "LLAMA_ARG_"


class CompareError(Exception):
    """Why there is nothing to compare with, in words for the user."""


def find_fit_params(llama_server: Path | None, search_path: str | None = None) -> Path:
    """Find it beside llama-server, else on PATH (``search_path`` for tests).

    Raises `CompareError`.
    """
    found = None
    if llama_server is not None:
        for folder in (llama_server.parent, llama_server.resolve().parent):
            found = found or shutil.which(FIT_PARAMS, path=str(folder))
    found = found or shutil.which(FIT_PARAMS, path=search_path)
    if found is None:
        raise CompareError(
            f"there is no {FIT_PARAMS} beside llama-server or on PATH to compare with; it is one of"
            " llama.cpp's programs"
        )
    return Path(found)


def run_fit_params(
    program: Path,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Run it and return what it printed. Raises `CompareError`."""
    kept = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if not name.startswith(_SETTING_PREFIX)
    }
    # Into a file: unlike a pipe it fills no memory, and no child of the program holds it up.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=kept,
            )
        except OSError as error:
            raise CompareError(f"{program} cannot be started: {error.strerror}") from None
        try:
            reason = _await_end(process, output.fileno(), timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(_END_TIMEOUT_S)
        output.seek(0)
        text = output.read(_MAX_OUTPUT_BYTES).decode("utf-8", "replace")
    if reason:
        raise CompareError(f"{program} {reason}")
    if process.returncode:
        raise CompareError(f"{program} {_ended(process.returncode)}: {_last_words(text)}")
    return text


def comparison(found: Footprint, fitted: Mapping[str, Parts]) -> str:
    """Lay both out for people, sizes in MiB."""
    rows = [("MiB", "", "estimated", FIT_PARAMS)]
    estimated = estimated_parts(found)
    for device in dict.fromkeys((*estimated, *fitted)):
        ours, theirs = estimated.get(device), fitted.get(device)
        rows += [
            (device, name, _mib(ours, name), _mib(theirs, name)) for name in Parts.__struct_fields__
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column > 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    if found.is_unified and found.slots > 1:
        lines += ["", f"{FIT_PARAMS} knows no slots that share a context: asked about others"]
    return "\n".join(lines)


def _await_end(process: "subprocess.Popen[bytes]", output: int, timeout_s: float) -> str:
    """Wait for the end and return the reason why it must be ended, if any."""
    left_s = timeout_s
    while left_s > 0:
        try:
            process.wait(_LOOK_INTERVAL_S)
        except subprocess.TimeoutExpired:
            left_s -= _LOOK_INTERVAL_S
        if os.fstat(output).st_size > _MAX_OUTPUT_BYTES:
            return f"printed more than {_MAX_OUTPUT_BYTES >> 20} MiB"
        if process.returncode is not None:
            return ""
    return f"did not end within {timeout_s:g} s"


def _ended(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = lines[-1] if lines else "it said nothing"
    return "".join(char if char.isprintable() else "?" for char in words)[:_MAX_REASON_CHARS]


def _mib(parts: Parts | None, name: str) -> str:
    return "-" if parts is None else f"{getattr(parts, name) / _MIB_BYTES:.1f}"
