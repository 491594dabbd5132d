"""Models as the control plane gets to see them: one by one, and in the list of a key's owner."""

import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from llama_router.catalog.candidate import printable
from llama_router.control.facade import ListedModel, ModelInfo
from llama_router.core.events import DeviceBytes
from llama_router.runtime.desk import Desk
from llama_router.runtime.names import ALIAS, aliases_of
from llama_router.runtime.roster import RosterModel

# States in which a process holds what is booked.
_BOOKED_STATES = frozenset({"loading", "loaded", "unloading", "stuck"})


def describe(desk: Desk, model: RosterModel, now: float) -> ModelInfo:
    """Return a model as it is ``now`` (of the loop's clock). On the data plane's loop only."""
    found, entry = model.found, model.entry
    described = ModelInfo(
        id=found.id,
        names=found.names,
        source=found.source.value,
        state="invalid",
        path=_text(found.path),
        mmproj=_text(found.mmproj),
        draft=_text(found.draft),
        group=entry.group,
        size_bytes=found.size_bytes,
        created_s=int(found.modified_at_s),
        error=found.invalid,
        title=entry.title,
        description=entry.description,
        is_unlisted=entry.unlisted,
        metadata={} if found.metadata is None else msgspec.to_builtins(found.metadata),
        capabilities=dict(entry.capabilities),
    )
    if found.invalid:
        return described
    view = desk.core.view(found.id)
    retry_in_s = None if view.retry_at is None else max(0.0, view.retry_at - now)
    return msgspec.structs.replace(
        described,
        state=view.state,
        in_flight=view.in_flight,
        waiting=view.waiting,
        fraction=view.fraction,
        error=view.last_error or "",
        retry_in_s=retry_in_s,
        pinned=view.pinned,
        memory=by_device(view.memory),
        is_booked=view.state in _BOOKED_STATES,
        is_measured=view.is_measured,
        load_cost_s=view.load_cost_s,
        ttl_s=view.ttl_s,
        expires_at_s=_unix_time(view.expires_at, now),
        last_eviction=view.last_eviction,
    )


def _text(path: Path | None) -> str:
    """Return a path as JSON can have it, whatever bytes it is of."""
    return "" if path is None else printable(str(path))


def listed_model(model: RosterModel, info: ModelInfo) -> ListedModel:
    """Return a model of ours as the list has it."""
    return ListedModel(
        id=info.id,
        title=info.title,
        description=info.description,
        created_s=info.created_s,
        metadata=dict(model.entry.metadata),
        info=info,
    )


def other_names(
    desk: Desk, patterns: tuple[str, ...], *, has_aliases: bool = True
) -> Iterator[ListedModel]:
    """Return what the list has beside our models, as far as a key's ``patterns`` open it.

    That is aliases, if the config says so, selectors, and the models of peers.
    """
    for one in desk.names.listing(has_aliases=has_aliases):
        if may_use(patterns, one.name):
            yield ListedModel(
                id=one.name,
                kind=one.kind,
                title=one.title,
                description=one.description,
                metadata=dict(one.metadata),
            )


def open_aliases(model: RosterModel, patterns: tuple[str, ...]) -> Iterator[ListedModel]:
    """Return the aliases that a key opens of a model whose id it does not."""
    for alias in aliases_of(model):
        if may_use(patterns, alias):
            yield ListedModel(id=alias, kind=ALIAS, title=model.entry.title)


def may_use(patterns: tuple[str, ...], *names: str) -> bool:
    """Tell whether the patterns of a key open a model of these names; none open all."""
    return not patterns or any(fnmatchcase(name, one) for name in names for one in patterns)


def by_device(parts: tuple[DeviceBytes, ...]) -> dict[str, int]:
    """Return amounts as the API has them."""
    return {part.device: part.size_bytes for part in parts}


def _unix_time(at: float | None, now: float) -> float | None:
    """Return a time of the core's clock as people and programs know it."""
    return None if at is None else round(time.time() + at - now, 3)
