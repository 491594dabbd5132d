"""llama-swap's ``config.yaml`` as a config of ours.

``translate`` reads the file's values and gives the same in our own words. The steps: macros are put
in (``llama_swap_macros``), every key is held against what is documented (``llama_swap_check``),
models are translated one by one (``llama_swap_models``), then what stands around them
(``llama_swap_routing``).
"""

import re
from collections.abc import Mapping
from typing import Any

from llama_router.config.importers.llama_swap_check import Checker
from llama_router.config.importers.llama_swap_commands import native_text, strip_comments
from llama_router.config.importers.llama_swap_keys import KEYS, OWN_TOP_LEVEL
from llama_router.config.importers.llama_swap_macros import (
    ENV,
    PID,
    PORT,
    MacroError,
    Macros,
    Scalar,
    check_macro,
)
from llama_router.config.importers.llama_swap_models import Models
from llama_router.config.importers.llama_swap_routing import put_routing
from llama_router.config.importers.source import Native, Source
from llama_router.config.problems import Keys

FORM = "llama-swap config"

# llama-swap's own, where ours differ.
HEALTH_CHECK_TIMEOUT_S, HEALTH_CHECK_TIMEOUT_MIN_S = 120, 15
UNLOAD_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 30
START_PORT = 5800
IGNORED_PATHS = (r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$",)

_LOG_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"}
_NO_VARIABLE = re.compile(r"[\n\r\0]")
_OUR_TOP_LEVEL = frozenset(
    {"version", "router", "default_spawn", "startup_model", "startup_profile", "defaults", "hub"}
)


def is_llama_swap(content: Mapping[str, Any]) -> bool:
    """Say whether a YAML file is one of llama-swap's: by its keys, whatever it is called."""
    models, has_ours = content.get("models"), bool(_OUR_TOP_LEVEL & set(content))
    if isinstance(models, dict):
        if has_ours and not any(isinstance(one, dict) and "cmd" in one for one in models.values()):
            # Every model of llama-swap's has a command: this is ours, with a fault.
            return False
        # An entry of our list without its dash is ours all the same, too.
        return not isinstance(models.get("name"), str)
    return models is None and not has_ours and bool(OWN_TOP_LEVEL & set(content))


def translate(
    source: Source, content: Mapping[str, Any], env: Mapping[str, str], *, is_windows: bool
) -> Native:
    """Give what the config means in ours. Raises ConfigError with all faults that are found."""
    expanded = _Expansion(source, env).expand(content)
    good = Checker(source, env).check(expanded)
    source.check()
    native = Native()
    native.put(("version",), "1.0", ())
    _put_router(native, good, source)
    models = Models(source, native, good, env, is_windows=is_windows)
    models.put()
    put_routing(native, good, source, models)
    source.check()
    return native


class _Expansion:
    """Puts macros in: the file's own everywhere, in models theirs as well."""

    def __init__(self, source: Source, env: Mapping[str, str]) -> None:
        self._source = source
        self._env = env

    def expand(self, content: Mapping[str, Any]) -> dict[str, Any]:
        macros = Macros(tuple(self._defined(content.get("macros"), ("macros",)).items()))
        expanded: dict[str, Any] = {}
        for name, value in content.items():
            if name not in KEYS:
                # Nobody reads it, but for anchors that it may hold.
                expanded[name] = value
            elif name == "macros":
                self._check_variables(value, (name,))
                expanded[name] = value
            elif name == "models" and isinstance(value, dict):
                expanded[name] = {
                    model_id: self._model(model_id, model, macros)
                    for model_id, model in value.items()
                }
            else:
                expanded[name] = self._each(value, (name,), macros)
        return expanded

    def _model(self, model_id: str, model: Any, macros: Macros) -> Any:  # noqa: ANN401 - any YAML value
        keys: Keys = ("models", model_id)
        if not isinstance(model, dict):
            return model
        own = macros.of_model(model_id, self._defined(model.get("macros"), (*keys, "macros")))
        expanded = {}
        for name, value in model.items():
            place = (*keys, name)
            if name == "macros":
                self._check_variables(value, place)
                expanded[name] = value
                continue
            if name in {"cmd", "cmdStop"} and isinstance(value, str):
                value = strip_comments(value)  # noqa: PLW2901 - before macros, as llama-swap does
            runtime = (PORT, PID) if name == "cmdStop" else (PORT,)
            expanded[name] = self._each(value, place, own, runtime)
        return expanded

    def _each(self, value: Any, keys: Keys, macros: Macros, runtime: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - any YAML value
        if isinstance(value, dict):
            named = {}
            for name, item in value.items():
                # These keys are names of models; others stay as they are.
                is_id = keys[-2:] == ("filters", "setParamsByID")
                written = self._each(name, (*keys, name), macros, runtime) if is_id else name
                if written in named:
                    self._source.fault((*keys, name), f"is the second key to mean {written}")
                named[str(written)] = self._each(item, (*keys, name), macros, runtime)
            return named
        if isinstance(value, list):
            return [
                self._each(item, (*keys, index), macros, runtime)
                for index, item in enumerate(value)
            ]
        try:
            expanded = macros.expand(value, runtime=runtime)
        except MacroError as error:
            self._source.fault(keys, str(error))
            return None
        # Left out, so that what it would have been is no second fault.
        return expanded if self._check_variables(expanded, keys) else None

    def _defined(self, section: Any, keys: Keys) -> dict[str, Scalar]:  # noqa: ANN401 - any YAML value
        if not isinstance(section, dict):
            return {}  # the checker says so
        macros = {}
        for name, value in section.items():
            try:
                check_macro(name, value)
            except MacroError as error:
                self._source.fault((*keys, name), str(error))
            else:
                macros[name] = value
        return macros

    def _check_variables(self, value: Any, keys: Keys) -> bool:  # noqa: ANN401 - any YAML value
        """Tell the faults of the variables in a value; return whether there are none."""
        if isinstance(value, dict):
            return all([self._check_variables(v, (*keys, name)) for name, v in value.items()])  # noqa: C419 - all of them
        if isinstance(value, list):
            return all([self._check_variables(v, (*keys, i)) for i, v in enumerate(value)])  # noqa: C419 - all of them
        wrong = []
        for match in ENV.finditer(value) if isinstance(value, str) else ():
            found = self._env.get(match[1])
            if found is None:
                wrong.append(f"the environment variable {match[1]} is not set")
            elif _NO_VARIABLE.search(found):
                wrong.append(f"the environment variable {match[1]} holds more than one line")
        for message in wrong:
            self._source.fault(keys, message)
        return not wrong


def _put_router(native: Native, good: Mapping[str, Any], source: Source) -> None:
    def put(name: str, value: object, origin: str) -> None:
        native.put(("router", name), value, (origin,))

    health_s = good.get("healthCheckTimeout", HEALTH_CHECK_TIMEOUT_S)
    put("ready_timeout_s", max(health_s, HEALTH_CHECK_TIMEOUT_MIN_S), "healthCheckTimeout")
    put("stop_grace_s", good.get("unloadTimeout") or UNLOAD_TIMEOUT_S, "unloadTimeout")
    put("connection_timeout_s", CONNECT_TIMEOUT_S, "models")
    put("base_port", good.get("startPort", START_PORT), "startPort")
    if good.get("globalTTL"):
        put("ttl_s", good["globalTTL"], "globalTTL")
    for theirs, ours in (
        ("sendLoadingState", "notify_model_swap"),
        ("includeAliasesInList", "include_aliases_in_list"),
    ):
        if theirs in good:
            put(ours, good[theirs], theirs)
    level = good.get("logLevel", "info")
    if level not in _LOG_LEVELS:
        source.fault(("logLevel",), f"must be one of {', '.join(_LOG_LEVELS)}")
    elif "logLevel" in good:
        put("log_level", _LOG_LEVELS[level], "logLevel")
    if good.get("apiKeys"):
        keys = [native_text(key) for key in good["apiKeys"]]
        native.put(("router", "api_keys"), keys, ("apiKeys",))
        for index in range(len(keys)):
            native.put(("router", "api_keys", index), keys[index], ("apiKeys", index))
    # Groups and the matrix alone decide there what runs side by side.
    put("memory_aware", False, "models")
    paths = good.get("upstream", {}).get("ignorePaths") or IGNORED_PATHS
    native.put(("router", "upstream_ignore_paths"), [*paths], ("upstream", "ignorePaths"))
