"""What holds for one model: the config's layers laid over each other, and where each value is from.

From below: what is built in, ``router`` and ``default_spawn``, ``defaults``, the templates that the
entry names (later over earlier), the entry, and what was set while running.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from llama_router.config.document import Document
from llama_router.config.problems import Keys
from llama_router.config.schema import (
    Config,
    Filters,
    ModelEntry,
    ModelSettings,
    RouterSettings,
    SpawnOverride,
    SpawnSettings,
    merged,
)

# Of these the model's own may be absent, and the router's holds. `max_waiting` says so by 0.
_FROM_ROUTER = (
    "ttl_s",
    "min_residency_s",
    "ready_timeout_s",
    "stop_grace_s",
    "connection_timeout_s",
    "read_timeout_s",
    "first_byte_timeout_s",
    "notify_model_swap",
    "max_waiting",
)
# Put together key by key; of other settings the uppermost is taken whole.
_MAPS = frozenset({"parameters", "metadata", "capabilities", "macros"})
_SECTIONS = frozenset({"spawn", "filters"})
_SETTINGS = frozenset(ModelSettings.model_fields)

BUILT_IN = "built in"
_ENTRY = "entry"
OVERRIDE = "set while running"


class Origin(NamedTuple):
    """Where a value is from: the layer in words, and its place in the file, () for none."""

    layer: str
    keys: Keys = ()


class _Layer(NamedTuple):
    name: str
    keys: Keys
    settings: ModelSettings


@dataclass(frozen=True)
class Resolved:
    """Everything that holds for a model.

    ``entry`` has final values: nothing in it is left to another layer, but for ``memory``, of which
    absent means estimated. Its name is empty for a model without an entry. ``spawn`` is complete,
    and so is ``entry.spawn``.
    """

    entry: ModelEntry
    spawn: SpawnSettings
    config: Config
    layers: tuple[_Layer, ...]

    @cached_property
    def origins(self) -> Mapping[str, Origin]:
        """Where each value is from, by its path in ``entry``, such as ``parameters.ctx-size``."""
        return dict(_origins(self.config, self.layers))


class _Shared(NamedTuple):
    """What is worked out once for a config: models without an entry are all alike."""

    config: Config
    base: tuple[_Layer, ...]
    plain: Resolved


_shared: _Shared | None = None


def resolve(
    config: Config, entry: ModelEntry | None, override: ModelSettings | None = None
) -> Resolved:
    """Lay the layers over each other for the model of ``entry``, None for one without an entry.

    ``entry`` is one of the config's, which was validated: its templates exist. Of an ``override``
    that is a ModelEntry, its templates take the place of the entry's.
    """
    shared = _shared_of(config)
    if entry is None and override is None:
        return shared.plain
    layers = list(shared.base)
    layers += [
        _Layer(f"template {name}", ("templates", name), config.templates[name])
        for name in _templates(config, entry, override)
    ]
    if entry is not None:
        layers.append(_Layer(_ENTRY, (), entry))
    if override is not None:
        layers.append(_Layer(OVERRIDE, (), override))
    return _laid(config, tuple(layers), entry)


def _templates(
    config: Config, entry: ModelEntry | None, override: ModelSettings | None
) -> tuple[str, ...]:
    """Return the templates of a model, from below; a reload may have taken chosen ones away."""
    if isinstance(override, ModelEntry) and "template" in override.model_fields_set:
        return tuple(name for name in override.template if name in config.templates)
    return () if entry is None else entry.template


def _shared_of(config: Config) -> _Shared:
    global _shared  # noqa: PLW0603 - one config is in use at a time, and asked thousands of times
    shared = _shared
    if shared is None or shared.config is not config:
        base = (_Layer("defaults", ("defaults",), config.defaults),)
        shared = _shared = _Shared(config, base, _laid(config, base, None))
    return shared


def _laid(config: Config, layers: tuple[_Layer, ...], entry: ModelEntry | None) -> Resolved:
    values = _router_values(config.router)
    spawn: dict[str, Any] = {"env": dict(config.default_spawn.env)}
    filters: dict[str, Any] = {}
    for layer in layers:
        settings = layer.settings
        for field in settings.model_fields_set & _SETTINGS:
            value = getattr(settings, field)
            if field in _MAPS:
                values[field] = {**values.get(field, {}), **value}
            elif field == "spawn":
                _lay_spawn(spawn, value)
            elif field == "filters":
                _lay_filters(filters, value)
            elif not _is_left_out(field, value):
                values[field] = value
    whole_spawn = merged(config.default_spawn, spawn)
    values["spawn"] = SpawnOverride.model_construct(
        **{field: getattr(whole_spawn, field) for field in SpawnOverride.model_fields}
    )
    values["filters"] = merged(Filters(), filters)
    override = layers[-1].settings
    if layers[-1].name == OVERRIDE and "template" in override.model_fields_set:
        values["template"] = _templates(config, entry, override)
    made = merged(_NAMELESS if entry is None else entry, values)
    return Resolved(made, whole_spawn, config, layers)


_NAMELESS = ModelEntry.model_construct(name="")


def _router_values(router: RouterSettings) -> dict[str, Any]:
    return {field: getattr(router, field) for field in _FROM_ROUTER}


def _lay_spawn(spawn: dict[str, Any], override: SpawnOverride) -> None:
    for field in override.model_fields_set:
        value = getattr(override, field)
        if field == "env":
            spawn["env"] = spawn["env"] | value
        elif value is not None:
            spawn[field] = value


def _lay_filters(filters: dict[str, Any], layer: Filters) -> None:
    for field in layer.model_fields_set:
        value = getattr(layer, field)
        if field == "set_params":
            filters[field] = {**filters.get(field, {}), **value}
        elif field == "set_params_by_id":
            by_id = dict(filters.get(field, {}))
            for name, params in value.items():
                by_id[name] = {**by_id.get(name, {}), **params}
            filters[field] = by_id
        else:
            filters[field] = value


def _origins(config: Config, layers: tuple[_Layer, ...]) -> Iterator[tuple[str, Origin]]:
    """Yield the origin of each value, from below: a later one takes the place of an earlier."""
    for field in ModelEntry.model_fields:
        if field not in _SECTIONS:
            yield field, Origin(BUILT_IN)
    for field in _FROM_ROUTER:
        if field in config.router.model_fields_set:
            yield field, Origin("router", ("router", field))
    default_spawn = config.default_spawn
    for field in SpawnSettings.model_fields:
        is_set = field in default_spawn.model_fields_set
        if field == "env":
            for variable in default_spawn.env:
                keys: Keys = ("default_spawn", "env", variable)
                yield f"spawn.env.{variable}", Origin("default_spawn", keys)
        else:
            keys = ("default_spawn", field)
            yield f"spawn.{field}", Origin("default_spawn", keys) if is_set else Origin(BUILT_IN)
    for field in Filters.model_fields:
        yield f"filters.{field}", Origin(BUILT_IN)
    for layer in layers:
        yield from _layer_origins(config, layer)


def _layer_origins(config: Config, layer: _Layer) -> Iterator[tuple[str, Origin]]:
    base = _entry_keys(config, layer.settings) if layer.name == _ENTRY else layer.keys
    for keys in _set_keys(layer.settings):
        yield ".".join(keys), Origin(layer.name, (*base, *keys) if base else ())


def _entry_keys(config: Config, settings: ModelSettings) -> Keys:
    # Looked for only when somebody asks for origins: there may be thousands of entries.
    for index, entry in enumerate(config.models):
        if entry is settings:
            return ("models", index)
    return ()


def _set_keys(settings: ModelSettings) -> Iterator[tuple[str, ...]]:
    """Yield the path of everything that the layer itself sets."""
    for field in settings.model_fields_set:
        value = getattr(settings, field)
        if field in _MAPS:
            yield from ((field, key) for key in value)
        elif isinstance(value, SpawnOverride | Filters):
            for part in value.model_fields_set:
                inner = getattr(value, part)
                if isinstance(inner, dict):
                    yield from ((field, part, key) for key in inner)
                elif inner is not None:
                    yield field, part
        elif not _is_left_out(field, value):
            yield (field,)


def _is_left_out(field: str, value: object) -> bool:
    """Whether the value says that another layer's holds."""
    return value is None or (field == "max_waiting" and value == 0)


def place_of(origin: Origin, document: Document | None) -> str:
    """Write where a value is from as people read it: ``templates.small (config.yaml:12)``."""
    if document is None or not origin.keys:
        return origin.layer
    return f"{origin.layer} ({document.path}:{document.line_of(origin.keys)})"
