"""Makes a running router follow another roster and config, without touching what stays the same."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from llama_router.config.clashes import unknown_targets
from llama_router.config.matrix import expand
from llama_router.config.problems import format_keys
from llama_router.config.schema import Config
from llama_router.core.coexistence import coexistence_of
from llama_router.core.events import ModelsPatched, SettingsChanged
from llama_router.core.settings import CoreSettings, GroupRule
from llama_router.runtime.desk import Desk
from llama_router.runtime.difference import Difference, difference
from llama_router.runtime.memory import Memory
from llama_router.runtime.roster import Roster, device_bytes, group_name

# Made and told in one callback; one takes some 30 µs.
_PORTION_COUNT = 20

# Each is looked for among all names; a config of a machine whose disk is away has many.
_UNKNOWN_MAX_COUNT = 20

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
Follower = Callable[[Config], object]
"""Told of a config that holds from now on; quick, on the event loop."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """From what a router follows to something else. ``unknown``: names that lead to no model."""

    roster: Roster
    other: Difference
    settings: CoreSettings
    unknown: tuple[str, ...] = ()


class Applier:
    """Carries steps out, one at a time. ``followers`` are told of each config."""

    def __init__(self, desk: Desk, memory: Memory) -> None:
        self._desk = desk
        self._memory = memory
        self._settings = core_settings(desk.roster.config, desk.roster)
        self.followers: list[Follower] = []
        self._unknown: tuple[str, ...] = ()

    def compare(self, new: Roster) -> Step:
        """Work out how ``new`` differs from what is followed. Not for the event loop."""
        settings = core_settings(new.config, new)
        return Step(
            roster=new,
            other=difference(self._desk.roster, new),
            # Both take their time with thousands of combinations.
            settings=self._settings if settings == self._settings else settings,
            unknown=unknown_names(new.config, new),
        )

    async def apply(self, step: Step) -> list[Collection[object]]:
        """Go over to another roster and its config.

        New models are known before a name leads to them, and removed ones until none does. Engines
        of models that are changed or removed finish what they answer. Returns what is to be let go
        of little by little.
        """
        desk, memory, other = self._desk, self._memory, step.other
        self.tell_unknown(step.unknown)
        for portion in _portions(other.appearing):
            desk.post(ModelsPatched(memory.introduced(step.roster, portion), ()))
            await asyncio.sleep(0)
        known = desk.core.ledger.models
        # Engines may take longer to their end than it is to the next change.
        leaving = dict(other.leaving)
        for left in _portions(tuple(desk.roster.leaving.items())):
            for name, model in left:
                if name in known and name not in step.roster:
                    leaving.setdefault(name, model)
            await asyncio.sleep(0)
        before = desk.roster.follow(step.roster, leaving=leaving)
        for follow in self.followers:
            follow(step.roster.config)
        if step.settings is not self._settings:
            self._settings = step.settings
            desk.post(SettingsChanged(step.settings))
        await memory.follow(step.roster.config.router, other.reappraised)
        for portion in _portions(other.touched):
            self._tell(portion)
            # Those who stream have their turn.
            await asyncio.sleep(0)
        desk.rename()
        for portion in _portions(other.removed):
            for name in portion:
                memory.forget(name)
                desk.room.forget(name)
            desk.post(ModelsPatched((), tuple(portion)))
            await asyncio.sleep(0)
        return before

    def tell_unknown(self, unknown: tuple[str, ...]) -> None:
        """Let the log have names that lead to no model, each once while that is so."""
        for doubt in unknown:
            if doubt not in self._unknown:
                _log.warning("%s", doubt)
        self._unknown = unknown

    def _tell(self, names: Sequence[str]) -> None:
        """Let the core know what these models are now."""
        roster, memory = self._desk.roster, self._memory
        told, invalid = [], []
        for name in names:
            if roster[name].found.invalid:
                invalid.append(name)
                memory.forget(name)
            elif (spec := memory.respecified(name)) is not None:
                told.append(spec)
        self._desk.post(ModelsPatched(tuple(told), tuple(invalid)))
        for spec in told:
            memory.confirm(spec.name)


def core_settings(
    config: Config, roster: Roster, budgets: Mapping[str, int] | None = None
) -> CoreSettings:
    """Return what the config says to the core; budgets are told at its start only."""
    router, matrix = config.router, config.matrix
    combinations: tuple[frozenset[str], ...] = ()
    costs: dict[str, float] = {}
    if matrix is not None:
        # By whatever name of theirs, as requests do.
        names = _names(roster)
        named = expand(matrix, names.keys())
        made = (frozenset(names[name] for name in combination) for combination in named)
        # A matrix that names no model there is allows none: each runs alone.
        combinations = tuple(dict.fromkeys(made)) or (frozenset(),)
        for name, cost in matrix.evict_costs.items():
            model = matrix.vars.get(name, name)
            costs[names.get(model, model)] = float(cost)
    settings = CoreSettings(
        budgets=device_bytes(budgets or {}),
        max_loaded=router.max_loaded,
        max_wait_s=router.max_wait_s,
        min_residency_s=router.min_residency_s,
        max_waiting=router.max_waiting,
        max_queue_s=router.max_queue_s,
        groups=tuple(
            GroupRule(
                name=group_name(name),
                swap=group.swap,
                exclusive=group.exclusive,
                persistent=group.persistent,
            )
            for name, group in config.groups.items()
        ),
        combinations=combinations,
        eviction_costs=costs,
    )
    coexistence_of(settings)  # remembered, and not worked out on the event loop
    return settings


def _names(roster: Roster) -> dict[str, str]:
    """Return the id of the model behind each name; of a name that several have, one's."""
    names = {name: model.found.id for model in roster.models for name in model.found.names}
    return names | {model.found.id: model.found.id for model in roster.models}


def unknown_names(config: Config, roster: Roster) -> tuple[str, ...]:
    """Say which names in the config lead to no model, in words.

    None is said to while there are peers that are asked for their models: it may be one of these.
    Looks through all names for those that may be meant: not for the event loop.
    """
    if not all(peer.models for peer in config.peers.values()):
        return ()
    known = set(_names(roster))
    for name, peer in config.peers.items():
        known.update(peer.models, (f"{name}/{model}" for model in peer.models))
    found = islice(unknown_targets(config, known), _UNKNOWN_MAX_COUNT)
    return tuple(f"{format_keys(issue.keys)}: {issue.message}" for issue in found)


def _portions(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _PORTION_COUNT):
        yield items[start : start + _PORTION_COUNT]
