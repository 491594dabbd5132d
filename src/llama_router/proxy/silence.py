"""What an engine's silence within a request means."""

from enum import Enum

from llama_router.proxy.limits import HEARTBEAT_S, SWEEP_S


class Verdict(Enum):
    """What is to be done about it."""

    WAIT = 0
    # Look whether the engine still lives; the request goes on waiting.
    PROBE = 1
    # The request's time is over; look whether the engine still lives, too.
    GIVE_UP = 2


def judge(
    silent_s: float,
    probed_s: float,
    *,
    has_begun: bool,
    read_timeout_s: float,
    first_byte_timeout_s: float,
) -> Verdict:
    """Judge a silence of ``silent_s``, after ``probed_s`` of which the engine was last looked at.

    Between the bytes of an answer an engine has ``read_timeout_s``. Before the first one it may
    have a long prompt to read, or a whole answer to write that is no stream: only
    ``first_byte_timeout_s`` (0: never) ends that, and whether the engine is alive is found out
    meanwhile.
    """
    if has_begun:
        return Verdict.GIVE_UP if silent_s > read_timeout_s else Verdict.WAIT
    if first_byte_timeout_s and silent_s > first_byte_timeout_s:
        return Verdict.GIVE_UP
    return Verdict.PROBE if silent_s - probed_s > read_timeout_s else Verdict.WAIT


class Silence:
    """How long nothing has come of a request's answer, in steps of SWEEP_S."""

    __slots__ = ("_probed_s", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        # How much of it was over when it was last looked into.
        self._probed_s = 0.0

    def grow(self) -> bool:
        """Another SWEEP_S has gone by; return whether the client is to be shown some life."""
        self.seconds += SWEEP_S
        return self.seconds % HEARTBEAT_S == 0

    def end(self) -> None:
        """Something has come."""
        self.seconds = self._probed_s = 0.0

    def judge(
        self, *, has_begun: bool, read_timeout_s: float, first_byte_timeout_s: float
    ) -> Verdict:
        """Judge it, see ``judge``; what is not WAIT counts as looked into."""
        verdict = judge(
            self.seconds,
            self._probed_s,
            has_begun=has_begun,
            read_timeout_s=read_timeout_s,
            first_byte_timeout_s=first_byte_timeout_s,
        )
        if verdict is not Verdict.WAIT:
            self._probed_s = self.seconds
        return verdict
