"""What another config changes about a running router."""

from collections.abc import Mapping

import msgspec

from llama_router.config.schema import Config
from llama_router.runtime.roster import Roster, RosterModel, fingerprint

# Settings of `router` that are read once, while the router starts.
AT_START = (
    "host",
    "port",
    "base_port",
    "policy",
    "memory_aware",
    "history",
    "preload",
)
# The same of the config itself.
_AT_START = ("startup_model", "startup_profile")
# Those that a model's spec is made of.
_OF_SPECS = (
    "ready_timeout_s",
    "ready_bytes_per_s",
    "stop_grace_s",
    "drain_deadline_s",
    "ttl_s",
)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of models, sorted.

    ``changed`` are those of which anything is other than it was, ``reappraised`` those that may
    need other memory (the new ones too). ``appearing``: that can be run now and could not before.
    ``touched``: of which the core may have to hear something. ``leaving``: the old ``removed``
    ones.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reappraised: tuple[str, ...] = ()
    appearing: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    leaving: Mapping[str, RosterModel] = {}


def difference(old: Roster, new: Roster) -> Difference:
    """Compare two rosters. Takes its time with thousands of models: not for the event loop."""
    before = {model.found.id: model for model in old.models}
    after = {model.found.id: model for model in new.models}
    added = [name for name in after if name not in before]
    changed, reappraised = [], list(added)
    for name, model in after.items():
        known = before.get(name)
        if known is None or known == model:
            continue
        changed.append(name)
        if fingerprint(known) != fingerprint(model) or _needs(known) != _needs(model):
            reappraised.append(name)
    leaving = {name: model for name, model in before.items() if name not in after}
    are_all_touched = _have_other_specs(old.config, new.config)
    return Difference(
        changed=tuple(changed),
        added=tuple(added),
        removed=tuple(leaving),
        reappraised=tuple(reappraised),
        appearing=tuple(
            name
            for name, model in after.items()
            if not model.found.invalid and (name not in before or before[name].found.invalid)
        ),
        touched=tuple(after) if are_all_touched else (*changed, *added),
        leaving=leaving,
    )


def _needs(model: RosterModel) -> tuple[object, ...]:
    """Return what an estimate of its memory is made from, besides its engine's command."""
    return model.entry.memory, model.found.parts, model.found.invalid


def _have_other_specs(old: Config, new: Config) -> bool:
    if (old.matrix is None) is not (new.matrix is None):
        return True
    return any(getattr(old.router, name) != getattr(new.router, name) for name in _OF_SPECS)


def restart_needed(started: Config, new: Config) -> tuple[str, ...]:
    """Name what of the new settings does not hold before the router is started again."""
    common = tuple(name for name in _AT_START if getattr(started, name) != getattr(new, name))
    old, now = started.router, new.router
    router = (f"router.{name}" for name in AT_START if getattr(old, name) != getattr(now, name))
    return (*common, *router)
