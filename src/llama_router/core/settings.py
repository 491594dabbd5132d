"""What holds for the whole core and not for one model."""

import msgspec

from llama_router.core.events import DeviceBytes


class CoreSettings(msgspec.Struct, frozen=True):
    """Limits and patience. Times in seconds.

    ``budgets``: how much of each device's memory engines may hold; none: memory is not looked at.
    ``max_loaded``: engines at a time, 0 for any number.
    ``max_wait_s``: who has waited this long for a model that is not loaded gets it next, whatever
    that costs the others.
    ``min_residency_s``: a model that became ready less than this ago goes for nobody but them. 0:
    who is idle goes at once, and who is used is protected by what its going would cost.
    ``max_waiting``: requests that may wait for one model.
    ``max_queue_s``: how long a request may wait, load included, until it is refused; 0: no end.
    """

    budgets: tuple[DeviceBytes, ...] = ()
    max_loaded: int = 0
    max_wait_s: float = 20.0
    min_residency_s: float = 0.0
    max_waiting: int = 1000
    max_queue_s: float = 0.0
