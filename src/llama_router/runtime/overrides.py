"""Settings of models that are set while the router runs, over what its config says.

They may come over the network: nothing that starts programs, names files or reaches an environment
is among them. Options of the engine are to be held against its list before they get here.
"""

from collections.abc import Container, Iterator, Mapping
from typing import Any

from llama_router.config.edit import Edit
from llama_router.config.macros import without_macros
from llama_router.config.problems import Keys
from llama_router.config.schema import Config, ModelEntry, ModelSettings
from llama_router.config.validate import validate

# Whatever runs or reads anything on this machine is for who can write the config file.
_LOCAL_ONLY = frozenset({"spawn", "macros"})
# Templates are the config's: choosing one brings in nothing that does not stand there.
SETTABLE = frozenset({*ModelSettings.model_fields, "template"}) - _LOCAL_ONLY


class OverrideError(Exception):
    """Settings that cannot be set; the text says which and why."""


class Overrides:
    """What was set and is not kept in the file, by the ids of models. A value: never changed."""

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Any]] | None = None,
        layers: Mapping[str, ModelSettings] | None = None,
    ) -> None:
        """``layers`` are the values as the config has them."""
        self._values = dict(values or {})
        self.layers: Mapping[str, ModelSettings] = dict(layers or {})

    def __getitem__(self, model: str) -> Mapping[str, Any]:
        """Return what was set of a model, nothing if nothing was."""
        return self._values.get(model, {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def changed(
        self, model: str, settings: Mapping[str, Any], templates: Container[str] = ()
    ) -> "Overrides":
        """Return them with these settings of a model, None taking one back.

        ``templates`` are those that there are. Raises OverrideError.
        """
        unknown = sorted(set(settings) - SETTABLE)
        if unknown:
            raise OverrideError(
                f"{', '.join(unknown)}: not to be set while running; that takes the config file"
            )
        chosen = _named(settings.get("template"))
        missing = [name for name in chosen if name not in templates]
        if missing:
            raise OverrideError(f"template: the config has no template '{missing[0]}'")
        return self._with(model, laid(self._values.get(model, {}), settings))

    def without(self, model: str) -> "Overrides":
        """Return them without any of a model."""
        return self._with(model, {})

    def _with(self, model: str, values: Mapping[str, Any]) -> "Overrides":
        # The others are as they were: with thousands of them that is what takes the time.
        others = {name: known for name, known in self._values.items() if name != model}
        layers = {name: known for name, known in self.layers.items() if name != model}
        if values:
            others[model] = dict(values)
            layers[model] = _checked(model, values)
        return Overrides(others, layers)


def laid(known: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others over them; None takes one back, of ``parameters`` each alone."""
    values = dict(known)
    for key, value in settings.items():
        if key == "parameters" and isinstance(value, Mapping):
            merged = {**values.get(key, {}), **value}
            values[key] = {name: one for name, one in merged.items() if one is not None}
        else:
            values[key] = value
    return {key: value for key, value in values.items() if value not in (None, {})}


def _checked(model: str, settings: Mapping[str, Any]) -> ModelSettings:
    """Return settings as the config has them. Raises OverrideError."""
    templates: dict[str, Any] = {name: {} for name in _named(settings.get("template"))}
    config, issues = validate({"templates": templates, "models": [{"name": model, **settings}]})
    if config is None:
        raise OverrideError(
            "; ".join(
                f"{'.'.join(str(key) for key in issue.keys[2:])}: {issue.message}"
                for issue in issues
            )
        )
    (entry,) = config.models
    return ModelEntry.model_construct(
        _fields_set=set(settings), **{name: getattr(entry, name) for name in settings}
    )


def _named(templates: object) -> tuple[str, ...]:
    """Return the names in a value of ``template``, be it one or several."""
    several = templates if isinstance(templates, list | tuple) else (templates,)
    return tuple(name for name in several if isinstance(name, str))


def entry_index(config: Config, model: str, names: tuple[str, ...]) -> int | None:
    """Return which entry of the config speaks of a model; ``names`` are its others."""
    for index, entry in enumerate(config.models):
        if entry.name == model or (entry.state == "auto" and entry.name in names):
            return index
    return None


def kept(
    config: Config,
    model: str,
    names: tuple[str, ...],
    override: Mapping[str, Any],
    said: Mapping[str, Any],
) -> list[Edit]:
    """Return the edits that put what was set into the file; ``said`` may take things back.

    What looks like a macro is none: it came over the network.
    """
    index = entry_index(config, model, names)
    name = model if index is None else config.models[index].name
    place: Keys = ("models", f"name={without_macros(name)}")
    edits = [Edit("set", (*place, "state"), "auto")] if index is None else []
    values = {key: None for key, value in said.items() if value is None} | dict(override)
    # None takes a setting out of the file.
    parameters = {
        **dict.fromkeys(said.get("parameters") or {}),
        **(values.pop("parameters", None) or {}),
    }
    if "parameters" in said and said["parameters"] is None:
        edits.append(Edit("remove", (*place, "parameters")))
    edits += [Edit("set", (*place, key), without_macros(value)) for key, value in values.items()]
    edits += [
        Edit("set", (*place, "parameters", option), without_macros(value))
        for option, value in parameters.items()
    ]
    return edits
