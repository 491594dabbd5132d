"""The states of a model's engine, and every way from one to the next.

Theory of operation. A model is UNLOADED until somebody waits for it and nothing that excludes it
runs; then it is spawned (STARTING) and, once it answers, READY. From READY it leaves in three ways.
It is stopped while idle, to make room or because somebody said so (STOPPING). It must go while
requests are still being answered (DRAINING): unloaded, reloaded with another configuration, or
caught by a shutdown; it takes no new requests and is stopped when the last one has ended or the
deadline has passed. Or its process ends by itself, which is a crash (STOPPING as well: the process
is gone, but what it held is only free once its whole tree has been reaped).

A swap needs no DRAINING: the model that is in the way stays READY while it answers, and newcomers
simply wait behind the claim of the model that is next; if that one's clients leave, nothing was
lost.

STOPPING ends with the reap, and only then do memory and address count as free. Where it leads was
decided when it began: UNLOADED after an orderly stop, COOLING (the back-off) after a crash or a
failed load, FAILED after too many of them. COOLING ends by itself; FAILED ends with an operator's
word, a changed configuration, or the one trial that a request may cause after a long while. What
cannot be reaped even though it was killed is STUCK: quarantined, in nobody's way, and UNLOADED
again if the system lets go of it after all.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final


class State(Enum):
    """Where a model's engine is in its life."""

    UNLOADED = "unloaded"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    COOLING = "cooling"
    FAILED = "failed"
    STUCK = "stuck"


class Trigger(Enum):
    """What takes an engine from one state to the next; the value reads as a label."""

    SPAWN = "spawn"
    ANSWERS = "answers"
    DRAIN = "must go, busy"
    STOP = "stop"
    EXIT = "process ended"
    REAPED = "reaped"
    BACK_OFF = "back off"
    GIVE_UP = "give up"
    OVERDUE = "reap overdue"
    COOLED = "back-off over"
    CLEAR = "history cleared"
    TRIAL = "trial"


TRANSITIONS: Final = MappingProxyType(
    {
        (State.UNLOADED, Trigger.SPAWN): State.STARTING,
        # It was inspected and could not have been started.
        (State.UNLOADED, Trigger.BACK_OFF): State.COOLING,
        (State.UNLOADED, Trigger.GIVE_UP): State.FAILED,
        (State.STARTING, Trigger.ANSWERS): State.READY,
        (State.STARTING, Trigger.STOP): State.STOPPING,
        (State.STARTING, Trigger.EXIT): State.STOPPING,
        # No process ever came of the spawn, so there is nothing to reap.
        (State.STARTING, Trigger.BACK_OFF): State.COOLING,
        (State.STARTING, Trigger.GIVE_UP): State.FAILED,
        (State.READY, Trigger.DRAIN): State.DRAINING,
        (State.READY, Trigger.STOP): State.STOPPING,
        (State.READY, Trigger.EXIT): State.STOPPING,
        (State.DRAINING, Trigger.STOP): State.STOPPING,
        (State.DRAINING, Trigger.EXIT): State.STOPPING,
        (State.STOPPING, Trigger.REAPED): State.UNLOADED,
        (State.STOPPING, Trigger.BACK_OFF): State.COOLING,
        (State.STOPPING, Trigger.GIVE_UP): State.FAILED,
        (State.STOPPING, Trigger.OVERDUE): State.STUCK,
        (State.COOLING, Trigger.COOLED): State.UNLOADED,
        (State.COOLING, Trigger.CLEAR): State.UNLOADED,
        (State.FAILED, Trigger.CLEAR): State.UNLOADED,
        (State.FAILED, Trigger.TRIAL): State.UNLOADED,
        (State.STUCK, Trigger.REAPED): State.UNLOADED,
        (State.STUCK, Trigger.BACK_OFF): State.COOLING,
        (State.STUCK, Trigger.GIVE_UP): State.FAILED,
    }
)

WITH_PROCESS: Final = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING})
"""States in which a process may exist and is in the way of others. (STUCK is in nobody's way.)"""

PUBLIC_NAMES: Final = MappingProxyType(
    {
        State.UNLOADED: "unloaded",
        State.STARTING: "loading",
        State.READY: "loaded",
        State.DRAINING: "unloading",
        State.STOPPING: "unloading",
        State.COOLING: "backing_off",
        State.FAILED: "failed",
        State.STUCK: "stuck",
    }
)
"""What the API calls each state."""


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.UNLOADED.name}"]
    lines += [
        f"    {old.name} --> {new.name}: {trigger.value}"
        for (old, trigger), new in TRANSITIONS.items()
    ]
    return "\n".join(lines) + "\n"
