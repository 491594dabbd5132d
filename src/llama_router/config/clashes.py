"""Faults that no entry of the config has alone: names claimed twice, settings that exclude others.

What is claimed twice is looked for in the plain content, so that it is told along with every other
fault. Whether settings contradict each other can only be said of those that are in order.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.schema import Config, RouterSettings, default_key_name


def claims(content: Mapping[str, Any]) -> Iterator[Issue]:
    """Find what is claimed twice; of faulty entries what can be read is looked at."""
    router = content.get("router")
    yield from _models(_list(content.get("models")))
    if isinstance(router, dict):
        yield from _keys(_list(router.get("api_keys")))
        yield from _preload(_list(router.get("preload")))


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


def _models(models: Sequence[Any]) -> Iterator[Issue]:
    owners: dict[str, str] = {}
    for index, model in enumerate(models):
        if not isinstance(model, dict):
            continue
        named: list[tuple[Keys, object]] = [(("models", index, "name"), model.get("name"))]
        named += [
            (("models", index, "aliases", number), alias)
            for number, alias in enumerate(_list(model.get("aliases")))
        ]
        for keys, name in named:
            if not isinstance(name, str):
                continue
            if name in owners:
                yield Issue(keys, f"{name} is already the name of {owners[name]}")
            else:
                owners[name] = format_keys(keys[:2])


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


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
