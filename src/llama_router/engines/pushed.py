"""What llama-server says of itself on its stdout when a router started it.

llama.cpp, tools/server/server-models.cpp: with LLAMA_SERVER_ROUTER_PORT in its environment it
writes lines "cmd_child_to_router:state:{json}" and reads "cmd_router_to_child:exit" from stdin.
"""

import msgspec

EXIT_LINE = b"cmd_router_to_child:exit\n"

_STATE_PREFIX = b"cmd_child_to_router:state:"
# Builds before the states only said this.
_READY_LINE = b"cmd_child_to_router:ready"


class Loading(msgspec.Struct, frozen=True):
    """Loading has come as far as ``fraction`` (0 to 1), None when it does not say."""

    fraction: float | None


class Ready(msgspec.Struct, frozen=True):
    """The engine answers requests."""


class Other(msgspec.Struct, frozen=True):
    """A line of the protocol that means nothing here, or is malformed."""


Report = Loading | Ready | Other


class _Progress(msgspec.Struct):
    stages: list[str] = []
    current: str = ""
    value: float | None = None


class _Named(msgspec.Struct):
    state: str
    payload: msgspec.Raw = msgspec.Raw(b"null")


def parse(line: bytes) -> Report | None:
    """Return what a line of stdout reports; None when it is an ordinary log line."""
    if line.rstrip() == _READY_LINE:
        return Ready()
    if not line.startswith(_STATE_PREFIX):
        return None
    try:
        named = msgspec.json.decode(line[len(_STATE_PREFIX) :], type=_Named)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Other()
    if named.state == "ready":
        return Ready()
    if named.state == "loading":
        return Loading(_fraction(named.payload))
    return Other()


def _fraction(payload: msgspec.Raw) -> float | None:
    """Map a stage and the value within it to one number: the stages count alike."""
    try:
        progress = msgspec.json.decode(payload, type=_Progress)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    value = progress.value
    if value is None or not 0.0 <= value <= 1.0:
        return None
    if progress.current not in progress.stages:
        return value
    return (progress.stages.index(progress.current) + value) / len(progress.stages)
