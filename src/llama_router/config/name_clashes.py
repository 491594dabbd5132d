"""Names of models, selectors and peers' models: each leads to one thing."""

from collections.abc import Iterator, Mapping
from typing import Any

from llama_router.config.plain import list_of, mapping_of
from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.schema import Config


def names_claimed(content: Mapping[str, Any]) -> Iterator[Issue]:
    """Find names that are claimed twice, and selectors that lead to selectors or twice to one.

    It is looked for in plain content, of which some may be faulty.
    """
    owners: dict[str, str] = {}
    for keys, owner, name in _claims(content):
        if name in owners:
            yield Issue(keys, f"{name} is already the name of {owners[name]}")
        else:
            owners[name] = format_keys(owner)
    yield from _selectors(mapping_of(content.get("selectors")))


def _claims(content: Mapping[str, Any]) -> Iterator[tuple[Keys, Keys, str]]:
    """Yield the place of each name, that of what it is the name of, and the name."""
    for index, model in enumerate(list_of(content.get("models"))):
        if isinstance(model, dict):
            yield from _names_of(model, ("models", index))
    for name in mapping_of(content.get("selectors")):
        keys: Keys = ("selectors", name)
        yield keys, keys, name


def peers_doubted(config: Config) -> Iterator[Issue]:
    """Find models of peers that nobody can reach, as their names lead elsewhere."""
    owners = {name: f"selectors.{name}" for name in config.selectors}
    for index, model in enumerate(config.models):
        for name in (model.name, *model.aliases, *model.filters.set_params_by_id):
            owners.setdefault(name, f"models[{index}]")
    for peer, entry in config.peers.items():
        for index, name in enumerate(entry.models):
            if name in owners:
                keys: Keys = ("peers", peer, "models", index)
                yield Issue(keys, f"is not reached: {name} leads to {owners[name]}")
            owners.setdefault(name, f"peers.{peer}")


def _names_of(model: Mapping[str, Any], keys: Keys) -> Iterator[tuple[Keys, Keys, str]]:
    own, aliases = model.get("name"), list_of(model.get("aliases"))
    if isinstance(own, str):
        yield (*keys, "name"), keys, own
    for number, alias in enumerate(aliases):
        if isinstance(alias, str):
            yield (*keys, "aliases", number), keys, alias
    for name in mapping_of(mapping_of(model.get("filters")).get("set_params_by_id")):
        # What is said of a name that the model has already makes no other of it.
        if name != own and name not in aliases:
            yield (*keys, "filters", "set_params_by_id", name), keys, name


def _selectors(selectors: Mapping[str, Any]) -> Iterator[Issue]:
    for name, selector in selectors.items():
        targets = list_of(mapping_of(selector).get("targets"))
        for index, target in enumerate(targets):
            keys: Keys = ("selectors", name, "targets", index)
            if isinstance(target, str) and target in selectors:
                yield Issue(keys, f"{target} is a selector; name the models that it leads to")
            elif target in targets[:index]:
                yield Issue(keys, "is named twice")
