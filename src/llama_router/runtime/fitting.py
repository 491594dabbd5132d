"""How llama-server is kept within the memory that models may take.

By itself it fits a model to the memory it finds (``--fit``), and keeps prompts in RAM.

It fills graphics cards with layers, and its context where none is asked for, until a margin is left
free (``--fit-target``, 1 GiB by default); without a card it takes all RAM of the machine for that.
Where that is more than the budget, the margin is made larger. Of prompts it keeps up to 8 GiB
(``--cache-ram``) on the smallest machine, too; there it is told to keep less.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llama_router.catalog import footprint
from llama_router.catalog.footprint import Footprint, Machine, Model
from llama_router.catalog.footprint_arguments import LaunchArguments
from llama_router.catalog.footprint_placement import Gpu
from llama_router.engines.devices import CPU

VARIABLE = "LLAMA_ARG_FIT_TARGET"
PROMPTS_VARIABLE = "LLAMA_ARG_CACHE_RAM"
VARIABLES = (VARIABLE, PROMPTS_VARIABLE)
_OPTIONS = frozenset({"-fitt", "--fit-target"})
_MIB_BYTES = 2**20
# Margins come in steps, so that what was measured under one is found again at the next start though
# a little more or less is free.
_STEP_MIB = 256
_TRIES = 4
# What is left of the budget to what the estimate may miss, and to a budget that shrinks a little.
_RAM_SHARE = 0.9
# Of all RAM for models, to the prompts that one engine keeps.
_PROMPTS_SHARE = 1 / 8


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate, and what the engine is to have in its environment for it to come true.

    ``within``: devices of which the engine takes no more than the budget. ``follows``: another
    budget makes another estimate.
    """

    footprint: Footprint
    env: Mapping[str, str] = {}
    within: frozenset[str] = frozenset()
    follows: bool = False


def is_said(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether the user has chosen the margin himself."""
    return VARIABLE in env or not _OPTIONS.isdisjoint(argv)


def limit_prompts(
    arguments: LaunchArguments, ram_bytes: int
) -> tuple[LaunchArguments, dict[str, str]]:
    """Have an engine keep no more of prompts than befits the RAM, unless the user has said it.

    Returns its arguments with the limit, and what it is to have in its environment.
    """
    limit_mib = int(ram_bytes * _PROMPTS_SHARE) // _MIB_BYTES
    is_said = arguments.cache_ram_mib is not None
    if is_said or not 0 < limit_mib < arguments.usual_cache_ram_mib:
        return arguments, {}
    limited = msgspec.structs.replace(arguments, usual_cache_ram_mib=limit_mib)
    return limited, {PROMPTS_VARIABLE: str(limit_mib)}


def fit(
    files: Model,
    arguments: LaunchArguments,
    machine: Machine,
    budgets: Mapping[str, int],
    *,
    may_tell: bool,
) -> Fitted:
    """Estimate a model; where ``may_tell``, with the margin that the budgets ask for."""
    if not arguments.fit or (machine.gpus and arguments.is_placed):
        return Fitted(footprint=footprint.estimate(files, arguments, machine))
    if machine.gpus:
        return _fit_cards(files, arguments, machine, budgets, may_tell=may_tell)
    found = footprint.estimate(files, arguments, machine)
    if arguments.ctx_size is not None or not may_tell or CPU not in budgets:
        return Fitted(footprint=found)
    goal = int(budgets[CPU] * _RAM_SHARE)
    if _ram(found) <= goal:
        return Fitted(footprint=found, follows=True)
    return _fit_ram(files, arguments, machine, goal, found)


def _fit_ram(
    files: Model, arguments: LaunchArguments, machine: Machine, goal: int, found: Footprint
) -> Fitted:
    """Leave so much RAM that the rest is the goal; the least context when nothing is enough.

    ``found`` is the estimate as things are.
    """
    target_mib = arguments.fit_target_mib
    for _ in range(_TRIES):
        excess = _ram(found) - goal
        if excess <= 0:
            break
        # The margin counts from all RAM there is, whatever the model would take of it.
        used = min(_ram(found), machine.ram_bytes - target_mib * _MIB_BYTES)
        target_mib = _stepped((machine.ram_bytes - used + excess) / _MIB_BYTES)
        less = msgspec.structs.replace(arguments, fit_target_mib=target_mib)
        found = footprint.estimate(files, less, machine)
    if _ram(found) > goal:
        target_mib = machine.ram_bytes // _MIB_BYTES
        less = msgspec.structs.replace(arguments, fit_target_mib=target_mib)
        found = footprint.estimate(files, less, machine)
    return Fitted(footprint=found, env={VARIABLE: str(target_mib)}, follows=True)


def _fit_cards(
    files: Model,
    arguments: LaunchArguments,
    machine: Machine,
    budgets: Mapping[str, int],
    *,
    may_tell: bool,
) -> Fitted:
    """Leave of each card what is not in its budget.

    The margin counts from what is free when the engine starts, so it is right beside others, too.
    """
    usual_mib = arguments.fit_target_mib
    margins = {
        gpu.name: max(usual_mib, (gpu.free_bytes - budgets.get(gpu.name, 0)) / _MIB_BYTES)
        for gpu in machine.gpus
    }
    is_more = any(margin > usual_mib + _STEP_MIB for margin in margins.values())
    if not (may_tell and is_more):
        found = footprint.estimate(files, arguments, machine)
        # A margin that was chosen by the user, or that is his budget anyway.
        names = frozenset() if is_more else frozenset(margins)
        return Fitted(footprint=found, within=names)
    steps = {name: _stepped(margin) for name, margin in margins.items()}
    gpus = tuple(
        Gpu(gpu.name, max(gpu.free_bytes - (steps[gpu.name] - usual_mib) * _MIB_BYTES, 0))
        for gpu in machine.gpus
    )
    found = footprint.estimate(files, arguments, msgspec.structs.replace(machine, gpus=gpus))
    env = {VARIABLE: ",".join(map(str, steps.values()))}
    return Fitted(footprint=found, env=env, within=frozenset(margins), follows=True)


def _ram(found: Footprint) -> int:
    return found.by_device.get(CPU, 0)


def _stepped(margin_mib: float) -> int:
    return -int(-margin_mib // _STEP_MIB) * _STEP_MIB
