"""Names that stand for several models: which of them a request gets is decided as it comes."""

from collections.abc import Callable, Sequence

import msgspec

from llama_router.config.schema import SelectorEntry
from llama_router.core.model import Model
from llama_router.core.states import State


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a target is doing: whether it answers, will answer soon, or cannot be had now.

    ``request_count``: requests that it answers and that wait for it.
    """

    is_loaded: bool = False
    is_loading: bool = False
    is_away: bool = False
    request_count: int = 0


_AWAY = frozenset({State.DRAINING, State.STOPPING, State.STUCK, State.COOLING, State.FAILED})


def standing_of(model: Model, held_count: int = 0) -> Standing:
    """Return how a model of the core is doing; ``held_count`` requests have not come there yet."""
    state = model.state
    return Standing(
        is_loaded=state is State.READY,
        is_loading=state is State.STARTING,
        is_away=state in _AWAY,
        request_count=len(model.waiting) + len(model.in_flight) + held_count,
    )


def choose(selector: SelectorEntry, look: Callable[[str], Standing | None]) -> str:
    """Return the target that a request is for. ``look`` gives None for an unknown one.

    ``pin``: the first. ``warm``: the first that is loaded, else the first that is being loaded,
    else the first. ``spillover``: of those in use, the first with fewer than ``spillover`` requests
    of its own; when there is none, the first that is not loaded; when all are, the least busy.
    """
    targets = selector.targets
    if selector.strategy == "pin" or len(targets) == 1:
        return targets[0]
    seen = [(target, standing) for target in targets if (standing := look(target)) is not None]
    if not seen:
        # Whoever looks the first one up says best what is wrong.
        return targets[0]
    if selector.strategy == "warm":
        return _warm(seen)
    return _spilled_over(seen, selector.spillover)


def _warm(seen: Sequence[tuple[str, Standing]]) -> str:
    for target, standing in seen:
        if standing.is_loaded:
            return target
    for target, standing in seen:
        if standing.is_loading:
            return target
    return seen[0][0]


def _spilled_over(seen: Sequence[tuple[str, Standing]], most_count: int) -> str:
    there = [one for one in seen if not one[1].is_away] or seen
    # Who is waited for but not started yet is in use, too.
    used = [one for one in there if one[1].is_loaded or one[1].is_loading or one[1].request_count]
    for target, standing in used:
        if standing.request_count < most_count:
            return target
    for target, standing in there:
        if (target, standing) not in used:
            return target
    return min(used, key=lambda one: one[1].request_count)[0]
