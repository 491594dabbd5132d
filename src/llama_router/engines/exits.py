"""Why an engine ended: what its exit status and its last words tell."""

import re
import signal
from collections.abc import Sequence

from llama_router.core.events import ExitCause

# How shells and container runtimes report that a signal ended their child.
_SIGNAL_STATUS_BASE = 128

# Last words are searched in so many lines; a crash dump may follow them.
TAIL_LINES = 60

# In a reason for people; the log has the whole line.
MAX_REASON_LINE_CHARS = 300

# As ggml and its backends (CUDA, Vulkan, SYCL, Metal), PyTorch, C++, Python and glibc say it.
_OUT_OF_MEMORY = re.compile(
    r"out[ _]?of[ _]?(?:(?:device|host|resource)[ _]?)?memory|bad_alloc|\benomem\b"
    r"|cannot allocate memory|can't allocate [0-9]+ bytes|allocation failed"
    r"|(?:failed|unable|not able) to (?:allocate|alloc)\b|memory allocation of .{0,40}\bfailed"
    r"|insufficient memory|\bmemoryerror\b",
    re.IGNORECASE,
)
# Memory that cannot be locked or pinned is used all the same: llama_mlock of llama.cpp and
# ggml_cuda_host_malloc only warn.
_HARMLESS = re.compile(r"\bmlock\b|\bpinned memory\b", re.IGNORECASE)

# llama-server ("couldn't bind HTTP server socket"), errno texts of Linux, macOS and Windows.
_ADDRESS_IN_USE = re.compile(
    r"address (?:is )?already in use|\beaddrinuse\b|could ?n[o']t bind|could not bind"
    r"|cannot bind|failed to bind|bind failed|only one usage of each socket address",
    re.IGNORECASE,
)

_TELLING = re.compile(
    r"error|fail|fatal|invalid|unable|cannot|can't|could ?n[o']t|not found|no such|abort"
    r"|assert|exception|terminate|unknown|unsupported|denied",
    re.IGNORECASE,
)


def classify(
    returncode: int | None,
    tail: Sequence[str],
    *,
    is_asked: bool,
    is_killed: bool,
    is_starting: bool,
    is_address_foreign: bool,
    was_oom_kill: bool | None = None,
) -> tuple[str, ExitCause]:
    """Return the reason for people and the cause.

    ``tail``: the last lines of output. ``is_asked``: we had asked it to end. ``is_killed``: we had
    sent SIGKILL. ``is_starting``: it had not been ready. ``is_address_foreign``: somebody else
    listens on its port now. ``was_oom_kill``: whether the kernel has killed anybody for want of
    memory while it ran; None where that is not known.
    """
    reason = _status_text(returncode)
    if is_asked or is_killed:
        return reason, ExitCause.EXITED
    lines = list(tail)[-TAIL_LINES:]
    if returncode != 0 and (words := last_words(lines)):
        reason = f"{reason}: {words}"
    text = "\n".join(lines)
    if returncode in (-_SIGKILL, _SIGNAL_STATUS_BASE + _SIGKILL) and was_oom_kill is not False:
        # The kernel does it without a word to the process.
        return f"probably ran out of memory ({reason})", ExitCause.OUT_OF_MEMORY
    if returncode != 0 and any(map(_tells_of_no_memory, lines)):
        return f"ran out of memory ({reason})", ExitCause.OUT_OF_MEMORY
    if is_starting and (is_address_foreign or _ADDRESS_IN_USE.search(text)):
        return reason, ExitCause.ADDRESS_IN_USE
    return reason, ExitCause.EXITED


def last_words(lines: Sequence[str]) -> str:
    """Return the last line that tells of a fault, else the last line that says anything."""
    spoken = [line.strip() for line in lines if line.strip()]
    telling = [line for line in spoken if _TELLING.search(line)]
    chosen = (telling or spoken or [""])[-1]
    return chosen[:MAX_REASON_LINE_CHARS]


def _tells_of_no_memory(line: str) -> bool:
    return _OUT_OF_MEMORY.search(line) is not None and not _HARMLESS.search(line)


# Not in Windows' signal module; there nothing ends with it.
_SIGKILL = 9


def _status_text(returncode: int | None) -> str:
    if returncode is None:
        return "ended together with the process that supervises the engines"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
