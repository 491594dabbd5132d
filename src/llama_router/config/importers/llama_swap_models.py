"""The models of a llama-swap config as entries of ours."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llama_router.config.importers.llama_swap_commands import (
    PORT_RUNS_ON,
    native_argument,
    native_text,
    split_command,
    with_spaced_variables,
)
from llama_router.config.importers.llama_swap_macros import ENV, PORT_MARK
from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Native, Source
from llama_router.config.problems import Keys

# Where the port stands in settings that are ours to fill in; elsewhere it is shown as a number.
_PORT_IS_FILLED_IN = frozenset({"cmd", "cmdStop", "proxy"})
_DEFAULT_PROXY = f"http://localhost:{PORT_MARK}"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - a name in a URL
# Whose engine is not a process below the one that was started.
_LAUNCHERS = frozenset({"docker", "podman", "nerdctl", "sudo", "doas", "ssh", "systemd-run"})
_PROTECTED = "model"
_LONGEST_S = 7 * 24 * 3600
_PORT_MAX = 65535
_VARIABLE = re.compile(r"[^=\0]+=", re.ASCII)

# Theirs, ours: what is carried over as it is.
_TEXTS = (
    ("useModelName", "use_model_name"),
    ("name", "title"),
    ("description", "description"),
)


class Models:
    """Translates all models; afterwards says what each is called and where it stands."""

    def __init__(
        self,
        source: Source,
        native: Native,
        good: Mapping[str, Any],
        env: Mapping[str, str],
        *,
        is_windows: bool,
    ) -> None:
        self._source = source
        self._native = native
        self._models: Mapping[str, Mapping[str, Any]] = good.get("models", {})
        self._start_port: int = native.content["router"]["base_port"]
        self._env = env
        self._is_windows = is_windows
        self._index = {model_id: index for index, model_id in enumerate(self._models)}
        self._ids = {alias: model_id for model_id, alias in self._aliases()}

    def _aliases(self) -> Iterator[tuple[str, str]]:
        for model_id, model in self._models.items():
            for alias in model.get("aliases", ()):
                yield model_id, alias
            for alias in model.get("filters", {}).get("setParamsByID", {}):
                yield model_id, alias

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def id_of(self, name: str) -> str | None:
        """Give the model that a name leads to; None for a name that none has."""
        return name if name in self._models else self._ids.get(name)

    def set(self, model_id: str, setting: str, value: object, origin: Keys) -> None:
        """Give a model's entry one more setting."""
        self._native.put(("models", self._index[model_id], setting), value, origin)

    def put(self) -> None:
        """Translate them all, in the order of the file."""
        ports = self._ports()
        self._native.put(("models",), [], ("models",))
        for model_id, model in self._models.items():
            place: Keys = ("models", model_id)
            self._native.put(("models", self._index[model_id]), {"name": model_id}, place)
            fixed = ports.get(model_id)
            if fixed is not None:
                # Where it listens is not to be told from the command any more.
                proxy = model.get("proxy") or _DEFAULT_PROXY
                model = _with_port({**model, "proxy": proxy}, fixed)  # noqa: PLW2901 - as it runs
            _Model(
                self._source,
                self._native,
                self._index[model_id],
                model_id,
                model,
                self._env,
                is_windows=self._is_windows,
            ).put()
        if ports and max(ports.values()) < _PORT_MAX:
            # The ports that are taken in turn must not be those that models have for good.
            self._native.put(("router", "base_port"), max(ports.values()) + 1, ("startPort",))

    def _ports(self) -> dict[str, int]:
        """Give the ports that llama-swap would, to the models that let theirs be seen.

        The others get a free one at each start, which cannot be another program's.
        """
        users = [
            model_id
            for model_id, model in sorted(self._models.items())
            if PORT_MARK in model.get("cmd", "")
        ]
        numbered = {model_id: self._start_port + index for index, model_id in enumerate(users)}
        return {
            model_id: port
            for model_id, port in numbered.items()
            if _shows_port(self._models[model_id])
        }


def _shows_port(model: Mapping[str, Any]) -> bool:
    if PORT_RUNS_ON.search(model.get("cmd", "") + " " + model.get("cmdStop", "")):
        return True
    return any(
        _mentions_port(value) for name, value in model.items() if name not in _PORT_IS_FILLED_IN
    )


def _mentions_port(value: Any) -> bool:  # noqa: ANN401 - any YAML value
    if isinstance(value, dict):
        return any(_mentions_port(name) or _mentions_port(item) for name, item in value.items())
    if isinstance(value, list):
        return any(_mentions_port(item) for item in value)
    return isinstance(value, str) and PORT_MARK in value


def _with_port(value: Any, port: int) -> Any:  # noqa: ANN401 - any YAML value
    """Write the port in; alone it is a number."""
    if isinstance(value, dict):
        return {_with_port_text(name, port): _with_port(item, port) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_port(item, port) for item in value]
    if isinstance(value, str):
        return port if value == PORT_MARK else _with_port_text(value, port)
    return value


def _with_port_text(text: str, port: int) -> str:
    return text.replace(PORT_MARK, str(port))


class _Model:
    """One model on its way."""

    def __init__(
        self,
        source: Source,
        native: Native,
        index: int,
        model_id: str,
        model: Mapping[str, Any],
        env: Mapping[str, str],
        *,
        is_windows: bool,
    ) -> None:
        self._source = source
        self._native = native
        self._index = index
        self._id = model_id
        self._model = model
        self._env = env
        self._is_windows = is_windows

    def put(self) -> None:
        self._put_command()
        self._put_address()
        self._put_health()
        self._put_environment()
        self._put_times()
        self._put_what_is_shown()
        model = self._model
        if "sendLoadingState" in model:
            self._set(("notify_model_swap",), model["sendLoadingState"], "sendLoadingState")
        if model.get("concurrencyLimit", 0) > 0:
            self._set(("max_requests",), model["concurrencyLimit"], "concurrencyLimit")
        filters = native_filters(model.get("filters", {}))
        if filters:
            self._set(("filters",), filters, "filters")

    def _put_what_is_shown(self) -> None:
        model = self._model
        for theirs, ours in _TEXTS:
            if model.get(theirs):
                self._set((ours,), native_text(str(model[theirs])), theirs)
        if "unlisted" in model:
            self._set(("unlisted",), model["unlisted"], "unlisted")
        if model.get("aliases"):
            # A name twice is no fault there.
            names = list(dict.fromkeys(name for name in model["aliases"] if name != self._id))
            self._set(("aliases",), names, "aliases")
        if model.get("metadata"):
            self._set(("metadata",), native_json(model["metadata"]), "metadata")
        if any(model.get("capabilities", {}).values()):
            self._set(("capabilities",), dict(model["capabilities"]), "capabilities")

    def _set(self, setting: Keys, value: object, key: str) -> None:
        self._native.put(("models", self._index, *setting), value, ("models", self._id, key))

    def _fault(self, key: str, message: str) -> None:
        self._source.fault(("models", self._id, key), message)

    def _put_command(self) -> None:
        command = self._split("cmd")
        if not command:
            missing = "is missing" if "cmd" not in self._model else "holds no command"
            keys: Keys = ("models", self._id)
            self._source.fault((*keys, "cmd") if "cmd" in self._model else keys, f"cmd {missing}")
            return
        self._set(("spawn", "command"), command, "cmd")
        program = re.split(r"[/\\]", command[0])[-1].lower().removesuffix(".exe")
        if program in _LAUNCHERS:
            self._set(("spawn", "owner_check"), "port", "cmd")
        stop = self._split("cmdStop")
        if stop:
            self._set(("spawn", "stop_command"), stop, "cmdStop")

    def _split(self, key: str) -> list[str]:
        text, names = with_spaced_variables(str(self._model.get(key, "")), self._env)
        for name in names:
            why = f"the value of {name} is several words, which are written out"
            self._source.note(("models", self._id, key), Fate.TRANSLATED, "", "spawn", why)
        arguments = split_command(text, is_windows=self._is_windows)
        return [native_argument(argument) for argument in arguments]

    def _put_address(self) -> None:
        proxy = str(self._model.get("proxy") or _DEFAULT_PROXY)
        proxy = ENV.sub(lambda match: self._env[match[1]], proxy)
        uses_port = PORT_MARK in proxy
        if uses_port and PORT_MARK not in self._model.get("cmd", ""):
            if "proxy" in self._model:
                self._fault("proxy", "uses ${PORT}, which is only there if cmd uses it")
            else:
                missing = "needs ${PORT} in it, or a proxy that says where the engine listens"
                self._fault("cmd", missing)
            return
        # A port that only we know cannot stand in a URL while it is looked at.
        try:
            parts = urlsplit(proxy.replace(PORT_MARK, "1"))
            port = parts.port or 80
        except ValueError:
            self._fault("proxy", "is no URL")
            return
        if parts.scheme != "http" or not parts.hostname:
            self._fault("proxy", "must be http:// and a host, as engines are asked without TLS")
            return
        if parts.path.strip("/") or parts.query or parts.fragment:
            self._fault(
                "proxy", "must end with its port, as engines are asked by the paths of requests"
            )
            return
        host = parts.hostname
        if uses_port and host in _LOOPBACK:
            return  # what it is anyway
        if host in _LOOPBACK:
            host = "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        self._set(("spawn", "address"), f"http://{shown}:{'$port' if uses_port else port}", "proxy")
        if host != "127.0.0.1":
            self._set(("spawn", "owner_check"), "port", "proxy")

    def _put_health(self) -> None:
        endpoint = self._model.get("checkEndpoint", "")
        if endpoint:
            is_path = endpoint == "none" or endpoint.startswith("/")
            path = endpoint if is_path else f"/{endpoint}"
            self._set(("spawn", "health_endpoint"), path, "checkEndpoint")

    def _put_environment(self) -> None:
        variables = {}
        for index, line in enumerate(self._model.get("env", ())):
            if not _VARIABLE.match(line):
                self._source.fault(("models", self._id, "env", index), "must be NAME=value")
                continue
            name, value = line.split("=", 1)
            variables[name] = native_text(value)
        if variables:
            self._set(("spawn", "env"), variables, "env")

    def _put_times(self) -> None:
        model = self._model
        ttl_s = model.get("ttl", -1)
        if ttl_s < -1:
            self._fault("ttl", "must be -1 (globalTTL), 0 (never) or more")
        elif ttl_s >= 0:
            self._set(("ttl_s",), ttl_s, "ttl")
        if model.get("unloadTimeout", 0) > 0:
            self._set(("stop_grace_s",), model["unloadTimeout"], "unloadTimeout")
        timeouts = model.get("timeouts", {})
        if "connect" in timeouts:
            self._set(("connection_timeout_s",), timeouts["connect"] or _LONGEST_S, "timeouts")
        if "responseHeader" in timeouts:
            self._set(("first_byte_timeout_s",), timeouts["responseHeader"], "timeouts")


def native_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is changed in requests, of a model or of a peer; the model's name never is."""
    native: dict[str, Any] = {}
    stripped = filters.get("stripParams") or filters.get("strip_params") or ""
    names = [name.strip() for name in stripped.split(",")]
    names = sorted({name for name in names if name and name != _PROTECTED})
    if names:
        native["strip_params"] = names
    if _unprotected(filters.get("setParams", {})):
        native["set_params"] = _unprotected(filters["setParams"])
    by_id = {
        name: _unprotected(values) for name, values in filters.get("setParamsByID", {}).items()
    }
    if by_id:
        native["set_params_by_id"] = by_id
    return native


def _unprotected(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: native_json(value) for name, value in values.items() if name != _PROTECTED}


def native_json(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Write the text in a value as our config has it."""
    if isinstance(value, dict):
        return {name: native_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [native_json(item) for item in value]
    return native_text(value) if isinstance(value, str) else value
