"""Every key that llama-swap documents, and what becomes of it here.

From its ``config-schema.json`` and the annotated ``docs/config.example.yaml`` (November 2026), with
the early forms that its loader still takes. A ``*`` stands for any name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from llama_router.config.importers.report import Fate


class Kind(Enum):
    """What stands behind a key."""

    WHOLE = auto()
    TRUTH = auto()
    TEXT = auto()
    TEXTS = auto()
    SECTION = auto()  # known keys, listed here as well
    NAMED = auto()  # any names, below each what is listed for ``*``
    TEXT_BY_NAME = auto()
    WHOLE_BY_NAME = auto()
    OBJECT = auto()
    OBJECT_BY_NAME = auto()
    IGNORED = auto()  # of no effect, so of any kind


@dataclass(frozen=True, slots=True)
class Key:
    """What is behind a documented key, and what becomes of it."""

    kind: Kind
    fate: Fate = Fate.HONOURED
    native: str = ""
    why: str = ""


def _same(kind: Kind, native: str, why: str = "") -> Key:
    return Key(kind, Fate.HONOURED, native, why)


def _turned(kind: Kind, native: str, why: str = "") -> Key:
    return Key(kind, Fate.TRANSLATED, native, why)


def _lost(why: str, kind: Kind = Kind.IGNORED) -> Key:
    return Key(kind, Fate.NOT_CARRIED, "", why)


_LOGS = "the router logs to stderr, engines to logs of their own"
_CONNECTIONS = "engine connections have fixed limits of their own"
_PUT_IN = "put in where it is used"
_TAILCAT = "the router speaks HTTP over TCP, not Tailcat"

_TIMEOUTS: Mapping[str, Key] = {
    "connect": _same(Kind.WHOLE, "connection_timeout_s"),
    "responseHeader": _same(Kind.WHOLE, "first_byte_timeout_s"),
    "keepalive": _lost(_CONNECTIONS, Kind.WHOLE),
    "tlsHandshake": _lost(_CONNECTIONS, Kind.WHOLE),
    "expectContinue": _lost("a request's body is sent at once", Kind.WHOLE),
    "idleConn": _lost(_CONNECTIONS, Kind.WHOLE),
}

_GROUPS: Mapping[str, Key] = {
    "groups": _turned(Kind.NAMED, "groups"),
    "groups.*": Key(Kind.SECTION),
    "groups.*.swap": _same(Kind.TRUTH, "groups.*.swap"),
    "groups.*.exclusive": _same(Kind.TRUTH, "groups.*.exclusive"),
    "groups.*.persistent": _same(Kind.TRUTH, "groups.*.persistent"),
    "groups.*.members": _turned(Kind.TEXTS, "models[].group"),
}

_MATRIX: Mapping[str, Key] = {
    "matrix": Key(Kind.SECTION, native="matrix"),
    "matrix.vars": _same(Kind.TEXT_BY_NAME, "matrix.vars"),
    "matrix.evict_costs": _same(Kind.WHOLE_BY_NAME, "matrix.evict_costs"),
    "matrix.sets": _same(Kind.TEXT_BY_NAME, "matrix.sets"),
}

_MODEL: Mapping[str, Key] = {
    "cmd": _turned(Kind.TEXT, "spawn.command"),
    "cmdStop": _turned(Kind.TEXT, "spawn.stop_command"),
    "proxy": _turned(Kind.TEXT, "spawn.address"),
    "aliases": _same(Kind.TEXTS, "aliases"),
    "env": _turned(Kind.TEXTS, "spawn.env"),
    "checkEndpoint": _same(Kind.TEXT, "spawn.health_endpoint"),
    "ttl": _same(Kind.WHOLE, "ttl_s"),
    "unloadTimeout": _same(Kind.WHOLE, "stop_grace_s"),
    "unlisted": _same(Kind.TRUTH, "unlisted"),
    "useModelName": _same(Kind.TEXT, "use_model_name"),
    "name": _same(Kind.TEXT, "title"),
    "description": _same(Kind.TEXT, "description"),
    "concurrencyLimit": _turned(Kind.WHOLE, "max_requests"),
    "macros": _turned(Kind.OBJECT, "", _PUT_IN),
    "metadata": _same(Kind.OBJECT, "metadata"),
    "sendLoadingState": _same(Kind.TRUTH, "notify_model_swap"),
    "filters": Key(Kind.SECTION, native="filters"),
    "filters.stripParams": _same(Kind.TEXT, "filters.strip_params"),
    "filters.strip_params": _same(Kind.TEXT, "filters.strip_params"),
    "filters.setParams": _same(Kind.OBJECT, "filters.set_params"),
    "filters.setParamsByID": _same(Kind.OBJECT_BY_NAME, "filters.set_params_by_id"),
    "timeouts": Key(Kind.SECTION),
    **{f"timeouts.{name}": key for name, key in _TIMEOUTS.items()},
    "compat": Key(Kind.SECTION),
    "compat.ignoreWebsockets": _lost(
        "no WebSocket ever loads a model here, or counts as a request", Kind.TRUTH
    ),
    "capabilities": Key(Kind.SECTION, native="capabilities"),
    "capabilities.in": _same(Kind.TEXTS, "capabilities.in"),
    "capabilities.out": _same(Kind.TEXTS, "capabilities.out"),
    "capabilities.tools": _same(Kind.TRUTH, "capabilities.tools"),
    "capabilities.reranker": _same(Kind.TRUTH, "capabilities.reranker"),
    "capabilities.context": _same(Kind.WHOLE, "capabilities.context"),
    "healthCheckTimeout": _lost("llama-swap replaces it by the global one", Kind.WHOLE),
}

_PEER: Mapping[str, Key] = {
    "proxy": _same(Kind.TEXT, "url"),
    "apiKey": _same(Kind.TEXT, "api_key"),
    "models": _same(Kind.TEXTS, "models"),
    "filters": Key(Kind.SECTION, native="filters"),
    "filters.stripParams": _same(Kind.TEXT, "filters.strip_params"),
    "filters.setParams": _same(Kind.OBJECT, "filters.set_params"),
    "timeouts": Key(Kind.SECTION),
    **{f"timeouts.{name}": key for name, key in _TIMEOUTS.items()},
    "tailcatKey": _lost(_TAILCAT),
}

_SELECTOR: Mapping[str, Key] = {
    "strategy": _same(Kind.TEXT, "strategy"),
    "targets": _same(Kind.TEXTS, "targets"),
    "settings": Key(Kind.SECTION),
    "settings.spillover": _same(Kind.WHOLE, "spillover"),
    "name": _same(Kind.TEXT, "title"),
    "description": _same(Kind.TEXT, "description"),
    "unlisted": _same(Kind.TRUTH, "unlisted"),
    "metadata": _same(Kind.OBJECT, "metadata"),
}

_ROUTING = "routing.router.settings"

KEYS: Mapping[str, Key] = {
    "": Key(Kind.SECTION),
    "healthCheckTimeout": _same(Kind.WHOLE, "router.ready_timeout_s"),
    "globalTTL": _same(Kind.WHOLE, "router.ttl_s"),
    "unloadTimeout": _same(Kind.WHOLE, "router.stop_grace_s"),
    "startPort": _same(Kind.WHOLE, "router.base_port"),
    "sendLoadingState": _same(Kind.TRUTH, "router.notify_model_swap"),
    "includeAliasesInList": _same(Kind.TRUTH, "router.include_aliases_in_list"),
    "apiKeys": _same(Kind.TEXTS, "router.api_keys"),
    "logLevel": _same(Kind.TEXT, "router.log_level"),
    "logTimeFormat": _lost(_LOGS),
    "logToStdout": _lost(_LOGS),
    "logRequests": _lost("llama-swap ignores it too"),
    "metricsMaxInMemory": _lost("the history of requests is kept on disk, within its own bounds"),
    "captureBuffer": _lost("requests and answers are not kept"),
    "store": Key(Kind.SECTION),
    "store.path": _lost("the history is kept in the router's state folder (XDG_STATE_HOME)"),
    "ui": Key(Kind.SECTION),
    "ui.activity": Key(Kind.SECTION),
    "ui.activity.session_id": _lost("requests are told apart by their keys, not by sessions"),
    "performance": Key(Kind.SECTION),
    "performance.disabled": _lost("memory is looked at because models are placed by it"),
    "performance.every": _lost("memory is looked at when it matters, at a pace of its own"),
    "tailcat": Key(Kind.SECTION),
    **{f"tailcat.{name}": _lost(_TAILCAT) for name in ("allow", "models", "admin", "debug")},
    "macros": _turned(Kind.OBJECT, "", _PUT_IN),
    "upstream": Key(Kind.SECTION),
    "upstream.ignorePaths": _same(Kind.TEXTS, "router.upstream_ignore_paths"),
    "hooks": Key(Kind.SECTION),
    "hooks.on_startup": Key(Kind.SECTION),
    "hooks.on_startup.preload": _same(Kind.TEXTS, "router.preload"),
    "hooks.on_startup.profile": _same(Kind.TEXT, "startup_profile"),
    "models": _turned(Kind.NAMED, "models"),
    "models.*": Key(Kind.SECTION),
    **{f"models.*.{name}": key for name, key in _MODEL.items()},
    **_GROUPS,
    **_MATRIX,
    "routing": Key(Kind.SECTION),
    "routing.router": Key(Kind.SECTION),
    "routing.router.use": _turned(Kind.TEXT, "groups or matrix"),
    _ROUTING: Key(Kind.SECTION),
    **{f"{_ROUTING}.{name}": key for name, key in {**_GROUPS, **_MATRIX}.items()},
    "routing.scheduler": Key(Kind.SECTION),
    "routing.scheduler.use": _turned(
        Kind.TEXT, "", "fifo is the only one; the order here is that of router.policy"
    ),
    "routing.scheduler.settings": Key(Kind.SECTION),
    "routing.scheduler.settings.fifo": Key(Kind.SECTION),
    "routing.scheduler.settings.fifo.priority": _same(Kind.WHOLE_BY_NAME, "models[].priority"),
    "selectors": _turned(Kind.NAMED, "selectors"),
    "selectors.*": Key(Kind.SECTION),
    **{f"selectors.*.{name}": key for name, key in _SELECTOR.items()},
    "profiles": _turned(Kind.NAMED, "profiles"),
    "profiles.*": Key(Kind.SECTION),
    "profiles.*.description": _same(Kind.TEXT, "description"),
    "profiles.*.pins": _same(Kind.TEXT_BY_NAME, "pins"),
    "peers": _turned(Kind.NAMED, "peers"),
    "peers.*": Key(Kind.SECTION),
    **{f"peers.*.{name}": key for name, key in _PEER.items()},
}
"""By the place of the key; what no user writes alone (sections) has no note of its own."""

# What tells such a file apart from ours, besides ``models`` with names before them.
OWN_TOP_LEVEL = frozenset(name for name in KEYS if name and "." not in name) - {
    # Ours has keys of these names as well.
    "macros",
    "models",
    "groups",
    "matrix",
    "selectors",
    "profiles",
    "peers",
}
