"""Names that stand for several models: which of them a request gets is decided as it comes."""

from collections.abc import Callable, Sequence

import msgspec

from llama_router.config.schema import SelectorEntry
from llama_router.core.model import Model
from llama_router.core.states import State


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a target is doing: whether it answers, will answer soon, or cannot be had now.

    ``is_away``: it is going, and can be loaded again when it has gone. ``is_failing``: it backs
    off, was given up or hangs. ``request_count``: requests that it answers and that wait for it.
    """

    is_loaded: bool = False
    is_loading: bool = False
    is_away: bool = False
    is_failing: bool = False
    request_count: int = 0


def standing_of(model: Model, now: float, held_count: int = 0) -> Standing:
    """Return how a model of the core is doing at ``now`` of the core's clock.

    ``held_count`` requests have not come there yet.
    """
    state = model.state
    # After a long ban the core lets one request try it again: this may be that one.
    is_on_trial = state is State.FAILED and model.crashes.retry_at <= now
    return Standing(
        is_loaded=state is State.READY,
        is_loading=state is State.STARTING,
        is_away=state is State.DRAINING or state is State.STOPPING,
        is_failing=state is State.STUCK or (model.is_set_back and not is_on_trial),
        request_count=len(model.waiting) + len(model.in_flight) + held_count,
    )


def choose(selector: SelectorEntry, look: Callable[[str], Standing | None]) -> str:
    """Return the target that a request is for. ``look`` gives None for an unknown one.

    ``pin``: the first, whatever happens. ``warm``: the first that is loaded, else the first that is
    being loaded, else the first. ``spillover``: of those in use, the first with fewer than
    ``spillover`` requests of its own; when there is none, the first that is not loaded; when all
    are, the least busy. These two pass over targets that fail, as long as there is another: when
    all do, the first says why.
    """
    targets = selector.targets
    if selector.strategy == "pin" or len(targets) == 1:
        return targets[0]
    seen = [(target, standing) for target in targets if (standing := look(target)) is not None]
    able = [one for one in seen if not one[1].is_failing]
    if not able:
        # Whoever looks the first one up says best what is wrong.
        return seen[0][0] if seen else targets[0]
    if selector.strategy == "warm":
        return _warm(able)
    return _spilled_over(able, selector.spillover)


def _warm(able: Sequence[tuple[str, Standing]]) -> str:
    for target, standing in able:
        if standing.is_loaded:
            return target
    for target, standing in able:
        if standing.is_loading:
            return target
    return able[0][0]


def _spilled_over(able: Sequence[tuple[str, Standing]], most_count: int) -> str:
    there = [one for one in able if not one[1].is_away] or able
    # Who is waited for but not started yet is in use, too.
    used = [one for one in there if one[1].is_loaded or one[1].is_loading or one[1].request_count]
    for target, standing in used:
        if standing.request_count < most_count:
            return target
    for target, standing in there:
        if (target, standing) not in used:
            return target
    return min(used, key=lambda one: one[1].request_count)[0]
