"""What a model's engine will take of memory: by the config, by old measurements, by its file.

Everything here reads the disk: not for the event loop.
"""

import logging
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import msgspec

from llama_router.catalog import footprint
from llama_router.catalog.footprint import Footprint, Need
from llama_router.catalog.footprint_arguments import ArgumentsError, parse_arguments
from llama_router.catalog.footprint_placement import Gpu
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.model import ModelSource
from llama_router.engines import devices
from llama_router.engines.devices import CPU, Device
from llama_router.engines.kinds import CommandError, build_launch, kind_of
from llama_router.engines.launch import LaunchSpec
from llama_router.engines.measure import measured_key
from llama_router.runtime import fitting
from llama_router.runtime.inspection import LLAMA_KINDS
from llama_router.runtime.machine import Machine
from llama_router.runtime.roster import Figure, RosterModel
from llama_router.store.records import Footprint as Remembered
from llama_router.store.records import FootprintKey

_log = logging.getLogger(__name__)

# Looking at a model costs a few milliseconds of a thread, and of thousands few are ever wanted.
MAX_UNASKED_COUNT = 300
# The core weighs everything anew when a figure changes: not for less than this.
_TELLING_SHARE = 0.02
_LIST_TIMEOUT_S = 5.0
# Stand in a command for what differs from start to start; no model depends on them.
_HOST, _PORT = "127.0.0.1", 65535
# What an engine of which nothing else is known may come to take beyond what was seen of it.
_UNKNOWN_GROWTH = 1.25


class Appraised(Figure, frozen=True, kw_only=True):
    """What is known of a model, with where it comes from.

    ``configured`` is the config's word; ``footprint`` the estimate of a llama.cpp engine, which
    keeps itself within the budget of the devices of ``within``; ``seen`` the most that was
    measured; ``floor`` what an engine ran out of memory with, and more. What follows from them is
    ``memory``, see ``with_seen``. ``key``: under which measurements are kept. ``env``: what the
    engine is to have in its environment. ``is_fitted``: its context is made to fit the budget, so
    another budget makes another figure. ``at_most``: what it can have of each device that it gets
    to itself; ``mapped_bytes``: what of its RAM the system can take back.
    """

    configured: Mapping[str, int] = {}
    footprint: Footprint | None = None
    within: frozenset[str] = frozenset()
    seen: Mapping[str, int] = {}
    floor: Mapping[str, int] = {}
    key: FootprintKey | None = None
    env: Mapping[str, str] = {}
    is_fitted: bool = False
    at_most: Mapping[str, int] = {}
    mapped_bytes: int = 0


def with_seen(
    figure: Appraised,
    seen: Mapping[str, int],
    budgets: Mapping[str, int],
    measurable: Container[str],
) -> Appraised:
    """Return the figure of a model of which so much was seen at most.

    The config's word holds until more is seen. What is seen corrects an estimate, as far as it can
    be seen on that device, without taking a young engine for a small one. Where there is neither,
    it is all that is known, and may be far from all that will be.

    Who needs more than happens to be free gets all of that to himself if the machine has enough: an
    estimate may be too high, the system makes room in RAM, and weights that are mapped are read
    again. Only an engine that ran out of memory with it proves that it does not run.
    """
    if figure.configured:
        memory = greater(figure.configured, seen)
        return msgspec.structs.replace(figure, seen=seen, memory=greater(memory, figure.floor))
    if figure.footprint is not None:
        memory = figure.footprint.reserve(budgets)
        for device in figure.within & memory.keys():
            memory[device] = min(memory[device], budgets.get(device, 0))
        if seen:
            measured = figure.footprint.reserve_measured(seen, budgets)
            memory.update({name: size for name, size in measured.items() if name in measurable})
    else:
        memory = {device: int(size * _UNKNOWN_GROWTH) for device, size in seen.items()}
        for device in memory.keys() & budgets.keys():
            # Room to grow is no reason to refuse what has run.
            memory[device] = max(seen[device], min(memory[device], budgets[device]))
    for device, size_bytes in memory.items():
        fixed_bytes = size_bytes - (figure.mapped_bytes if device == CPU else 0)
        if 0 < budgets.get(device, 0) < size_bytes and fixed_bytes <= figure.at_most.get(device, 0):
            memory[device] = budgets[device]
    return msgspec.structs.replace(figure, seen=seen, memory=greater(memory, figure.floor))


def is_telling(old: Mapping[str, int], new: Mapping[str, int]) -> bool:
    """Return whether the core should hear of a new figure."""
    return any(
        abs(new.get(device, 0) - old.get(device, 0)) > old.get(device, 0) * _TELLING_SHARE
        for device in {**old, **new}
    )


def in_words(memory: Mapping[str, int]) -> str:
    """Say amounts by device to people."""
    return ", ".join(
        f"{size / 2**20:.0f} MiB of {'RAM' if device == CPU else device}"
        for device, size in memory.items()
    )


def choose_unasked(models: list[RosterModel]) -> list[RosterModel]:
    """Choose those to look at before anybody asks for them.

    Of many, those come first that have a place in the config of their own.
    """
    if len(models) <= MAX_UNASKED_COUNT:
        return models
    return sorted(models, key=lambda model: not _is_special(model))[:MAX_UNASKED_COUNT]


def _is_special(model: RosterModel) -> bool:
    return model.found.source is ModelSource.CONFIG or model.entry.pinned


class Appraiser:
    """Knows the machine and what was measured before; for one thread at a time."""

    def __init__(
        self,
        *,
        machine: Machine,
        env: Mapping[str, str],
        found_llama_server: Path | None,
        remembered: Callable[[], Mapping[FootprintKey, Remembered]],
    ) -> None:
        self._machine = machine
        self._env = env
        self._found_llama_server = found_llama_server
        self._remembered = remembered
        # The cards that each program sees: a build for the CPU sees none.
        self._gpus: dict[str, tuple[Gpu, ...]] = {}

    def appraise(self, model: RosterModel, budgets: Mapping[str, int]) -> Appraised:
        """Return what is known of a model. Raises nothing for what is wrong with it.

        Without budgets memory is not looked at, and nothing is estimated.
        """
        configured = self._configured(model)
        try:
            launch = build_launch(
                model.template,
                model.facts,
                generation=0,
                host=_HOST,
                port=_PORT,
                base_env=self._env,
                found_llama_server=self._found_llama_server,
            )
        except (CommandError, OSError):
            return Appraised(memory=configured, configured=configured)
        found = Appraised()
        if kind_of(launch.argv).name in LLAMA_KINDS:
            # Whoever says what it takes needs no estimate.
            found = self._estimated(model, launch, {} if configured else budgets)
        key = _key_of(model, launch, found.env)
        known = self._remembered().get(key)
        figure = msgspec.structs.replace(
            found,
            configured=configured,
            load_s=known.load_time_s if known else 0.0,
            key=key,
            at_most=self._machine.at_most,
        )
        seen = known.memory_bytes if known else {}
        return with_seen(figure, seen, budgets, self._machine.measurable)

    def _configured(self, model: RosterModel) -> dict[str, int]:
        said = model.entry.memory
        if said is None:
            return {}
        if isinstance(said, dict):
            return dict(said)
        cards = self._machine.cards
        return {cards[0].name if cards else CPU: said}

    def _estimated(
        self, model: RosterModel, launch: LaunchSpec, budgets: Mapping[str, int]
    ) -> Appraised:
        is_embedded = kind_of(launch.argv).name == "embedded"
        env = launch.env
        if is_embedded:
            env = {name: env[name] for name in fitting.VARIABLES if name in env}
        try:
            arguments = parse_arguments(launch.argv[1:], env)
            slots = max(arguments.slots, 0)
        except ArgumentsError as error:
            _log.warning("%s: its engine will not start: %s", model.found.id, error)
            return Appraised()
        if model.found.path is None or not budgets:
            return Appraised(slots=slots)
        try:
            files = footprint.read_model(model.found.path, arguments, parts=model.found.parts)
        except (GgufError, OSError) as error:
            _log.warning("%s: what it needs cannot be told: %s", model.found.id, error)
            return Appraised(slots=slots)
        gpus = self._gpus_of(launch.argv[0])
        ram_bytes = self._machine.total_bytes.get(CPU, 0)
        machine = footprint.Machine(ram_bytes=ram_bytes, gpus=gpus)
        for_models = min(ram_bytes, self._machine.configured.get(CPU, ram_bytes))
        arguments, limits = fitting.limit_prompts(arguments, for_models)
        # Whether the embedded engine's build can use graphics cards cannot be told.
        is_unsure = is_embedded and bool(gpus)
        may_tell = not is_unsure and not fitting.is_said(launch.argv, env)
        fitted = fitting.fit(files, arguments, machine, budgets, may_tell=may_tell)
        found = fitted.footprint
        if is_unsure:
            alone = footprint.estimate(files, arguments, footprint.Machine(ram_bytes=ram_bytes))
            found = msgspec.structs.replace(found, needs=_greater_needs(found, alone))
        return Appraised(
            footprint=found,
            within=fitted.within,
            slots=slots,
            env={**limits, **fitted.env},
            is_fitted=fitted.follows,
            mapped_bytes=found.mapped_bytes if arguments.is_mapped else 0,
        )

    def _gpus_of(self, program: str) -> tuple[Gpu, ...]:
        """Return the graphics cards that a program can use."""
        cards = self._machine.cards
        if not cards:
            return ()
        if program not in self._gpus:
            listed = None
            if Path(program).stem == "llama-server":
                listed = devices.list_devices(Path(program), _LIST_TIMEOUT_S)
            self._gpus[program] = tuple(
                Gpu(card.name, card.available_bytes) for card in _seen(cards, listed)
            )
        return self._gpus[program]


def _seen(cards: Sequence[Device], listed: Sequence[Device] | None) -> Sequence[Device]:
    """Return which of the cards a program lists; all when it does not say."""
    if listed is None:
        return cards
    names = {device.name for device in listed}
    # A build for Vulkan has other names for the same cards, in the same order as a rule.
    return [card for card in cards if card.name in names] or cards[: len(listed)]


def greater(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the greater of each device's bytes."""
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}


def _greater_needs(one: Footprint, other: Footprint) -> tuple[Need, ...]:
    """Return the greater need of each device."""
    needs = {need.device: need for need in one.needs}
    for need in other.needs:
        known = needs.get(need.device)
        if known is None or known.lasting < need.lasting:
            needs[need.device] = need
    return tuple(needs.values())


def _key_of(model: RosterModel, launch: LaunchSpec, env: Mapping[str, str]) -> FootprintKey:
    """Return what decides about memory: the file, the command, the environment, the program."""
    program = shutil.which(launch.argv[0], path=launch.env.get("PATH")) or launch.argv[0]
    said = {name: text for name, text in launch.env.items() if name.startswith("LLAMA_ARG_")}
    settings = [f"{name}={text}" for name, text in sorted({**said, **env}.items())]
    key = measured_key(
        model.found.path, [program, *launch.argv[1:], *settings], varying=(_HOST, str(_PORT))
    )
    # A model without a file is known by its name.
    return FootprintKey(key.model or model.found.id, key.arguments, key.build)
