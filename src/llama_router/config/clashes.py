"""Faults that no entry of the config has alone: settings that exclude or do not know each other.

What is claimed twice, or not there, is looked for in the plain content, so that it is told along
with every other fault. Whether settings contradict each other can only be said of those that are
in order. What is allowed and likely not meant is a doubt: a warning.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from llama_router.config import matrix as dsl
from llama_router.config.name_clashes import names_claimed, peers_doubted
from llama_router.config.plain import list_of
from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.schema import (
    Config,
    MatrixSettings,
    ModelSettings,
    RouterSettings,
    default_key_name,
)


def claims(content: Mapping[str, Any]) -> Iterator[Issue]:
    """Find what is claimed twice, or by nobody; of faulty entries what can be read is looked at."""
    router = content.get("router")
    yield from names_claimed(content)
    yield from _templates(content)
    if isinstance(router, dict):
        yield from _keys(list_of(router.get("api_keys")))
        yield from _preload(list_of(router.get("preload")))


def contradictions(config: Config) -> Iterator[Issue]:
    """Find settings that leave each other without a meaning."""
    yield from _waits(config.router)
    most, wanted = config.router.max_loaded, len(config.router.preload)
    if 0 < most < wanted:
        yield Issue(
            ("router", "preload"), f"names {wanted} models, of which max_loaded allows {most}"
        )
    for index, model in enumerate(config.models):
        if model.pinned and model.ttl_s:
            yield Issue(
                ("models", index, "ttl_s"), "has no effect on a pinned model; leave one of them out"
            )
    yield from _shared_aliases(config)
    if config.matrix is not None:
        yield from _matrix(config, config.matrix)


def doubts(config: Config) -> Iterator[Issue]:
    """Find what is allowed and yet likely not meant."""
    yield from _group_doubts(config)
    yield from peers_doubted(config)
    if config.matrix is not None:
        yield from _matrix_doubts(config.matrix)
    for name, selector in config.selectors.items():
        if "spillover" in selector.model_fields_set and selector.strategy != "spillover":
            keys: Keys = ("selectors", name, "spillover")
            yield Issue(keys, f"has no effect with the strategy {selector.strategy}")
    for name, profile in config.profiles.items():
        for pinned, target in profile.pins.items():
            if pinned == target:
                yield Issue(("profiles", name, "pins", pinned), "leads to itself: it has no effect")
    if config.router.history_prompts and not config.router.history:
        yield Issue(("router", "history_prompts"), "has no effect without router.history")


def unknown_targets(config: Config, known: Collection[str]) -> Iterator[Issue]:
    """Find names that lead nowhere: ``known`` are all names of models that there are.

    To be asked once the models on disk, and of peers, are known.
    """
    names = {*known, *config.selectors}
    words = {*known, *(config.matrix.vars if config.matrix else ())}
    for keys, name, possible in _targets(config, known, names, words):
        if name not in possible:
            yield Issue(keys, f"there is no model {name}{_hint(name, possible)}")


def _targets(
    config: Config, models: Collection[str], names: Collection[str], words: Collection[str]
) -> Iterator[tuple[Keys, str, Collection[str]]]:
    """Yield each place that names a model, the name, and what may stand there."""
    for name, selector in config.selectors.items():
        for index, target in enumerate(selector.targets):
            yield ("selectors", name, "targets", index), target, models
    for name, profile in config.profiles.items():
        for pinned, target in profile.pins.items():
            if target:
                yield ("profiles", name, "pins", pinned), target, names
    for index, name in enumerate(config.router.preload):
        yield ("router", "preload", index), name, models
    if config.matrix is not None:
        for variable, name in config.matrix.vars.items():
            yield ("matrix", "vars", variable), name, models
        for set_name, word in dict.fromkeys(dsl.words_of(config.matrix)):
            yield ("matrix", "sets", set_name), word, words


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _waits(router: RouterSettings) -> Iterator[Issue]:
    if router.policy == "benefit" and 0 < router.max_queue_s < router.max_wait_s:
        yield Issue(
            ("router", "max_queue_s"),
            f"must be max_wait_s ({router.max_wait_s:g}) or more, as requests would be refused"
            " before their model's turn comes; lower max_wait_s too",
        )
    # The default may exceed a short max_wait_s: nobody asked for it.
    written = "min_residency_s" in router.model_fields_set
    if written and router.min_residency_s > router.max_wait_s:
        yield Issue(
            ("router", "min_residency_s"),
            f"has no effect beyond max_wait_s ({router.max_wait_s:g}), after which a model has to"
            " go anyway",
        )


def _shared_aliases(config: Config) -> Iterator[Issue]:
    """Find layers that would give several models one alias."""
    users = dict.fromkeys(config.templates, 0)
    for model in config.models:
        # One that is not there is told of as such.
        for name in users.keys() & model.template:
            users[name] += 1
    layers: list[tuple[Keys, ModelSettings]] = [(("defaults",), config.defaults)]
    layers += [
        (("templates", name), template)
        for name, template in config.templates.items()
        if users[name] > 1
    ]
    for keys, layer in layers:
        if layer.filters.set_params_by_id:
            yield Issue(
                (*keys, "filters", "set_params_by_id"),
                "would give several models the same aliases; put it into the entries of models",
            )


def _matrix(config: Config, matrix: MatrixSettings) -> Iterator[Issue]:
    for fault in dsl.faults(matrix):
        yield Issue(("matrix", "sets", fault.set_name), str(fault))
    if not matrix.sets:
        yield Issue(("matrix",), "has no sets; without one every model would run alone")
    message = "has no meaning beside matrix; leave one of them out"
    if config.groups:
        yield Issue(("groups",), message)
    for keys, settings in _layers(config):
        if settings.group:
            yield Issue((*keys, "group"), message)


def _layers(config: Config) -> Iterator[tuple[Keys, ModelSettings]]:
    yield ("defaults",), config.defaults
    for name, template in config.templates.items():
        yield ("templates", name), template
    for index, model in enumerate(config.models):
        yield ("models", index), model


def _group_doubts(config: Config) -> Iterator[Issue]:
    if not config.groups:
        return
    named: set[str] = set()
    for keys, settings in _layers(config):
        if settings.group:
            named.add(settings.group)
            if settings.group not in config.groups:
                hint = _hint(settings.group, config.groups)
                yield Issue((*keys, "group"), f"is none of groups, whose defaults it has{hint}")
    for name in config.groups:
        if name not in named:
            yield Issue(("groups", name), "is the group of no model")


def _matrix_doubts(matrix: MatrixSettings) -> Iterator[Issue]:
    words = {word for _, word in dsl.words_of(matrix)}
    for name in matrix.evict_costs:
        if name not in words and name not in matrix.vars and name not in matrix.vars.values():
            yield Issue(("matrix", "evict_costs", name), "is in no set")
    for name in matrix.vars:
        if name not in words and name not in matrix.evict_costs:
            yield Issue(("matrix", "vars", name), "is in no set")


def _templates(content: Mapping[str, Any]) -> Iterator[Issue]:
    templates = content.get("templates")
    known = [str(name) for name in templates] if isinstance(templates, dict) else []
    for index, model in enumerate(list_of(content.get("models"))):
        named = model.get("template") if isinstance(model, dict) else None
        keys: Keys = ("models", index, "template")
        places: list[tuple[Keys, Any]] = [(keys, named)]
        if not isinstance(named, str):
            places = [((*keys, number), name) for number, name in enumerate(list_of(named))]
        for place, name in places:
            if isinstance(name, str) and name not in known:
                yield Issue(place, f"there is no template {name}{_hint(name, known)}")


def _keys(entries: Sequence[Any]) -> Iterator[Issue]:
    """Say where, and never which: what is in the wrong place may be a secret as well."""
    keys: dict[str, str] = {}
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        place: Keys = ("router", "api_keys", index)
        owner = format_keys(place)
        parts = entry if isinstance(entry, dict) else {"key": entry}
        key, name = parts.get("key"), parts.get("name") or default_key_name(index)
        if isinstance(key, str):
            if keys.setdefault(key, owner) != owner:
                yield Issue(place, f"is the same key as {keys[key]}")
            if key == name:
                yield Issue((*place, "name"), "must differ from the key, as it is shown and stored")
        if isinstance(name, str) and names.setdefault(name, owner) != owner:
            yield Issue((*place, "name"), f"is the name of {names[name]} already")


def _preload(names: Sequence[Any]) -> Iterator[Issue]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Issue(("router", "preload", index), "is named twice")
