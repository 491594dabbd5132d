"""Keeps the core's view of memory true: budgets as others come and go, models as measured.

How memory counts: a model needs all of its weights, mapped from its file or not, because a part
that had to make way would be read from the disk for each token. Yet they are no part of what is
*held* when the budget is looked at again: to the system, pages of a file are available. What was
measured takes the place of the estimate, but for what an engine takes only when it is used.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from llama_router.config.schema import RouterSettings
from llama_router.core.events import (
    BudgetsChanged,
    Event,
    FootprintMeasured,
    ModelsPatched,
    ModelSpec,
)
from llama_router.core.machine import Core
from llama_router.core.model import Model
from llama_router.core.states import State
from llama_router.engines.launch import OwnerCheck
from llama_router.engines.measure import Meter, tree_of
from llama_router.runtime import machine as machines
from llama_router.runtime.appraisal import (
    Appraised,
    Appraiser,
    choose_unasked,
    greater,
    in_words,
    is_telling,
    with_seen,
)
from llama_router.runtime.machine import Machine
from llama_router.runtime.roster import Roster, RosterModel, device_bytes
from llama_router.store.store import Store

_log = logging.getLogger(__name__)

# So long the start waits for estimates; a header takes 4 ms. What is not known by then runs alone
# until it is.
START_WAIT_S = 0.25
_PORTION_COUNT = 20
# Looked up, and no more, in one callback.
_LOOKED_UP_COUNT = 500
# How soon the use of memory by others is noticed.
LOOK_INTERVAL_S = 15.0
# A change of a budget is believed when it is seen twice.
_CONFIRM_PAUSE_S = 1.0
# Between measurements of one engine: walking the pages of a large one takes time.
FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
# The core weighs everything anew when a figure changes: not for less than this.
_TELLING_LOAD_SHARE = 0.2


class Engines(Protocol):
    """The processes of the engines."""

    def pid(self, generation: int) -> int | None:
        """Return the main process of one; None when there is none (any more)."""

    def pids(self) -> list[int]:
        """Return the main processes of all."""


class _Watched:
    """One engine that is ready, and what was seen of it.

    ``has_served``: it was measured after it was used, ``was_used``: it was used by the last time.
    """

    def __init__(self, model: Model, meter: Meter) -> None:
        self.model = model
        self.generation = model.generation
        self.meter = meter
        # Waiters were served when it became ready.
        self.served = 0 if model.in_flight else model.served
        self.was_used = False
        self.has_served = False
        self.task: asyncio.Task[None] | None = None


class Memory:
    """Tells the core of budgets and figures. ``open`` it with the core, ``close`` it at the end.

    Implements EngineWatcher for the engine room.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        settings: RouterSettings,
        machine: Machine,
        appraiser: Appraiser,
        store: Store | None,
        post: Callable[[Event], None],
        engines: Engines,
    ) -> None:
        self._roster = roster
        self._settings = settings
        self._machine = machine
        self._appraiser = appraiser
        self._store = store
        self._post = post
        self._engines = engines
        self.budgets = machines.budgets_of(machine, settings)
        self._figures: dict[str, Appraised] = {}
        self._specs: dict[str, ModelSpec] = {}
        self._watched: dict[int, _Watched] = {}
        self._engine_of: dict[str, _Watched] = {}
        # Figures that the core gets when the model's engine is ready or gone.
        self._late: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Whose figure is of another budget; they get another when their engine is gone.
        self._stale: set[str] = set()
        self._core: Core | None = None
        # Models that nobody has looked at yet, which run alone; see `know`.
        self.unknown: set[str] = set()
        self._looks: dict[str, asyncio.Task[None]] = {}

    @property
    def is_aware(self) -> bool:
        """Whether memory decides what runs side by side."""
        return bool(self.budgets)

    def in_words(self) -> str:
        """Say in one line what there is for engines."""
        return machines.in_words(self._machine, self.budgets)

    # --- the start and the end

    async def appraise(self, wait_s: float = START_WAIT_S) -> tuple[ModelSpec, ...]:
        """Return the specs for the core, with all figures that are known in time.

        The others follow as events.
        """
        runnable = [model for model in self._roster.models if not model.found.invalid]
        self.unknown.update(model.found.id for model in runnable)
        work = self._start(self._appraise_all(choose_unasked(runnable)), "estimate memory")
        await asyncio.wait((work,), timeout=wait_s)
        specs, used = {}, dict(self._figures)
        for number, model in enumerate(runnable):
            if number % _PORTION_COUNT == _PORTION_COUNT - 1:
                await asyncio.sleep(0)
            specs[model.found.id] = self._spec(model)
        for name, figure in self._figures.items():
            if used.get(name) is not figure and name in specs:
                specs[name] = self._spec(self._roster[name])
        self._specs = specs
        return tuple(specs.values())

    async def know(self, name: str) -> None:
        """Look at a model that nobody has looked at yet, and tell the core before this returns."""
        if name not in self.unknown or name not in self._roster:
            return
        look = self._looks.get(name)
        if look is None:
            look = self._start(self._appraise_all([self._roster[name]]), f"estimate {name}")
            self._looks[name] = look
            look.add_done_callback(lambda _: self._looks.pop(name, None))
        # Whoever leaves does not end it for the others.
        await asyncio.shield(look)

    def open(self, core: Core) -> None:
        """Begin to tell this core."""
        self._core = core
        self._tell_late()
        for name, figure in self._figures.items():
            self._tell_measured(name, figure)
        if self.is_aware:
            self._start(self._look_again_and_again(), "look at memory")

    def close(self) -> None:
        """Look at nothing any more."""
        for task in [*self._tasks, *(watched.task for watched in self._watched.values())]:
            if task is not None:
                task.cancel()

    def environment_of(self, model: str) -> Mapping[str, str]:
        """Return what a model's engine is to have in its environment beyond everybody's."""
        figure = self._figures.get(model)
        return figure.env if figure is not None else {}

    # --- another config

    async def follow(self, settings: RouterSettings, names: Collection[str]) -> None:
        """Go by other settings and look at these models anew, which the roster has by now.

        What is not known in time follows as events, as at the start.
        """
        old, self._settings = self._settings, settings
        if (old.memory, old.memory_reserve) != (settings.memory, settings.memory_reserve):
            self._machine = msgspec.structs.replace(self._machine, configured=dict(settings.memory))
            await self._change_budgets(await self._budgets_now())
        models = []
        for number, name in enumerate(names):
            if number % _LOOKED_UP_COUNT == 0:
                await asyncio.sleep(0)
            if not self._roster[name].found.invalid:
                models.append(self._roster[name])
                self.unknown.add(name)
        if models:
            chosen = await asyncio.to_thread(choose_unasked, models)
            work = self._start(self._appraise_all(chosen), "estimate memory")
            await asyncio.wait((work,), timeout=START_WAIT_S)

    def introduced(self, roster: Roster, names: Iterable[str]) -> tuple[ModelSpec, ...]:
        """Return what the core is to know first of models of another roster; ``follow`` tells more.

        Of what they need nothing is known yet, so they would run alone.
        """
        specs = {name: roster.spec(roster[name], is_memory_aware=self.is_aware) for name in names}
        self._specs.update(specs)
        return tuple(specs.values())

    def respecified(self, name: str) -> ModelSpec | None:
        """Return what the core is to know of a model now; None if it has been told so."""
        known, spec = self._specs.get(name), self._spec(self._roster[name])
        self._specs[name] = spec
        return None if spec == known else spec

    def confirm(self, name: str) -> None:
        """Tell the core, after a spec of a model, what of it was measured."""
        self._tell_measured(name, self._figure(name))

    def forget(self, name: str) -> None:
        """Know nothing any more of a model that is gone from the config."""
        self._specs.pop(name, None)
        self._figures.pop(name, None)
        self._late.discard(name)
        self._stale.discard(name)
        self.unknown.discard(name)

    # --- EngineWatcher

    def ready(self, model: str, generation: int, load_s: float) -> None:
        """See EngineWatcher."""
        self._figures[model] = msgspec.structs.replace(self._figure(model), load_s=load_s)
        known = self._model(model)
        if known is None or known.generation != generation:
            return
        if abs(load_s - known.load_cost_s) > known.load_cost_s * _TELLING_LOAD_SHARE:
            self._post(FootprintMeasured(model, load_cost_s=load_s))
        self._lift_floor(known)
        watched = _Watched(known, Meter(lambda: self._pids(generation)))
        self._watched[generation] = self._engine_of[model] = watched
        watched.task = asyncio.get_running_loop().create_task(
            self._watch(watched), name=f"measure-{model}-{generation}"
        )

    def gone(self, model: str, generation: int) -> None:
        """See EngineWatcher."""
        watched = self._watched.pop(generation, None)
        if watched is not None:
            if watched.task is not None:
                watched.task.cancel()
            if self._engine_of.get(model) is watched:
                del self._engine_of[model]
        known, figure = self._model(model), self._figure(model)
        if known is not None and known.ran_out and figure.memory:
            raised = {part.device: part.size_bytes for part in known.memory}
            self._figures[model] = msgspec.structs.replace(figure, floor=raised, memory=raised)
        self._tell_late()
        if model in self._stale:
            self._stale.discard(model)
            if model in self._roster:
                self._start(self._appraise_all([self._roster[model]]), f"estimate {model}")

    def _lift_floor(self, model: Model) -> None:
        """Forget what a model ran out of memory with when an operator had it tried with less."""
        figure = self._figure(model.name)
        expected = {part.device: part.size_bytes for part in model.memory}
        if any(expected.get(device, 0) < size for device, size in figure.floor.items()):
            self._figures[model.name] = msgspec.structs.replace(figure, floor={}, memory=expected)

    # --- estimates

    async def _appraise_all(self, models: list[RosterModel]) -> None:
        for start in range(0, len(models), _PORTION_COUNT):
            portion = models[start : start + _PORTION_COUNT]
            found = await asyncio.to_thread(self._appraise, portion)
            # A reload may have come in between.
            figures = {name: figure for name, figure in found.items() if name in self._roster}
            for name, figure in figures.items():
                if floor := self._figure(name).floor:
                    memory = greater(figure.memory, floor)
                    figures[name] = msgspec.structs.replace(figure, floor=floor, memory=memory)
            self._figures.update(figures)
            self.unknown.difference_update(found)
            if self._specs:
                self._late.update(figures)
                self._tell_late()

    def _appraise(self, models: Iterable[RosterModel]) -> dict[str, Appraised]:
        figures = {}
        for model in models:
            if self._roster.silence_of(model):
                continue
            try:
                figures[model.found.id] = self._appraiser.appraise(model, self.budgets)
            except Exception:  # noqa: BLE001  # a mistake of ours must cost one estimate only
                _log.exception("fault while estimating %s", model.found.id)
        return figures

    def _figure(self, model: str) -> Appraised:
        return self._figures.get(model) or Appraised()

    def _model(self, name: str) -> Model | None:
        return self._core.ledger.models.get(name) if self._core is not None else None

    def _spec(self, model: RosterModel) -> ModelSpec:
        figure = self._figure(model.found.id)
        known = self._model(model.found.id)
        if figure.floor and known is not None and known.ran_out:
            # The core keeps what it has raised, until somebody orders a load.
            figure = with_seen(
                msgspec.structs.replace(figure, floor={}),
                figure.seen,
                self.budgets,
                self._machine.measurable,
            )
        return self._roster.spec(model, figure, is_memory_aware=self.is_aware)

    def _tell_late(self) -> None:
        """Give the core the figures that came after the specs, where the model's state allows it.

        What a process holds is booked anew only for one that is ready.
        """
        told = []
        for name in tuple(self._late):
            if name not in self._roster:
                self._late.discard(name)
                continue
            model = self._model(name)
            if model is not None and (not model.has_process or model.state is State.READY):
                self._late.discard(name)
                self._specs[name] = self._spec(self._roster[name])
                told.append(model)
        if not told:
            return
        self._post(ModelsPatched(tuple(self._specs[model.name] for model in told), ()))
        for model in told:
            if model.has_process and self._specs[model.name].memory:
                memory = device_bytes(self._figure(model.name).memory)
                self._post(FootprintMeasured(model.name, memory))
            else:
                self._tell_measured(model.name, self._figure(model.name))

    def _tell_measured(self, name: str, figure: Appraised) -> None:
        """Let the core know of a figure that it has already that an earlier run has measured it."""
        known = self._model(name)
        if known is not None and known.ran_out:
            return
        if figure.seen and name in self._specs and self._specs[name].memory:
            self._post(FootprintMeasured(name, self._specs[name].memory))

    # --- measurements

    async def _watch(self, watched: _Watched) -> None:
        """Measure an engine when it is ready, and from time to time while it is used."""
        pause_s = FIRST_PAUSE_S
        is_first = True
        while True:
            # Not at once: whoever waited for it has his turn before.
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._tell_late()
            model = watched.model
            is_used = model.served != watched.served or bool(model.in_flight)
            if not (is_first or is_used or watched.was_used):
                continue
            is_first = False
            watched.served = model.served
            watched.has_served |= watched.was_used or (is_used and not model.in_flight)
            watched.was_used = is_used
            try:
                await watched.meter.sample()
            except Exception:  # noqa: BLE001  # a mistake of ours ends no more than the measuring
                _log.exception("fault while measuring the engine of %s", model.name)
                return
            self._learn(watched)

    def _learn(self, watched: _Watched) -> None:
        """Take what was seen of an engine for what its model needs, as far as it can be."""
        model = watched.model
        # An engine that is on its way out gives its memory back.
        if model.generation != watched.generation or model.state is not State.READY:
            return
        figure = self._figure(model.name)
        seen = greater(figure.seen, watched.meter.peak)
        if not self.is_aware or not (figure.memory or self._is_whole(watched)):
            self._remember(figure)
            return
        measured = with_seen(figure, seen, self.budgets, self._machine.measurable)
        self._figures[model.name] = measured
        self._remember(measured)
        if not is_telling(figure.memory, measured.memory):
            return
        _log.info("%s needs %s, as measured", model.name, in_words(measured.memory))
        if self._specs[model.name].memory:
            self._post(FootprintMeasured(model.name, device_bytes(measured.memory)))
        else:
            self._late.add(model.name)
            self._tell_late()

    def _is_whole(self, watched: _Watched) -> bool:
        """Return whether what is seen of an engine is all that it holds, now that it was used."""
        template = self._roster[watched.model.name].template
        return (
            watched.has_served
            and template.owner_check is OwnerCheck.TREE
            and set(self.budgets) <= self._machine.measurable
        )

    def _remember(self, figure: Appraised) -> None:
        """Keep what was seen for the next start."""
        if self._store is None or figure.key is None:
            return
        known = self._store.footprints().get(figure.key)
        if known is not None and (
            not is_telling(known.memory_bytes, figure.seen)
            and abs(known.load_time_s - figure.load_s) <= known.load_time_s * _TELLING_LOAD_SHARE
        ):
            return
        self._store.remember_footprint(
            figure.key, memory_bytes=dict(figure.seen), load_time_s=figure.load_s
        )

    def _pids(self, generation: int) -> tuple[int, ...]:
        pid = self._engines.pid(generation)
        return tree_of(pid) if pid is not None else ()

    # --- budgets

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            budgets = await self._budgets_now()
            if not machines.is_other(self._machine, self.budgets, budgets):
                continue
            await asyncio.sleep(_CONFIRM_PAUSE_S)
            again = await self._budgets_now()
            # Of two looks that differ, what has changed in both; an engine may just have ended.
            for device, size_bytes in again.items():
                known = self.budgets.get(device, 0)
                one, other = budgets.get(device, known) - known, size_bytes - known
                same_way = one * other > 0
                again[device] = known + min(one, other, key=abs) if same_way else known
            if machines.is_other(self._machine, self.budgets, again):
                await self._change_budgets(again)

    async def _budgets_now(self) -> dict[str, int]:
        roots = self._engines.pids()

        def look() -> dict[str, int]:
            pids = [pid for root in roots for pid in tree_of(root)]
            machine, held = machines.look_again(self._machine, pids)
            return machines.budgets_of(machine, self._settings, held)

        return await asyncio.to_thread(look)

    async def _change_budgets(self, budgets: dict[str, int]) -> None:
        """Tell the core, after it knows what models need now that they have to fit these."""
        self.budgets = budgets
        _log.info("%s", self.in_words())
        fitted = {name for name, figure in self._figures.items() if figure.is_fitted}
        self._stale = {
            name for name in fitted if (model := self._model(name)) and model.has_process
        }
        for number, name in enumerate(list(self._figures)):
            if number % _PORTION_COUNT == 0:
                # Hundreds at a time would hold up the requests.
                await asyncio.sleep(0)
            figure = self._figure(name)
            again = with_seen(figure, figure.seen, budgets, self._machine.measurable)
            if is_telling(figure.memory, again.memory):
                self._figures[name] = again
                self._late.add(name)
        there = sorted(name for name in fitted - self._stale if name in self._roster)
        await self._appraise_all([self._roster[name] for name in there])
        self._tell_late()
        self._post(BudgetsChanged(device_bytes(budgets)))

    def _start(self, work: "asyncio._CoroutineLike[None]", name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("fault in '%s'", task.get_name(), exc_info=error)
