"""The keys that llama-swap documents, written down from its documentation and nothing of ours.

``config-schema.json`` and the annotated ``docs/config.example.yaml`` of November 2026; at the end
what only its loader knows. ``*`` is any name.
"""

_TIMEOUTS = "connect keepalive responseHeader tlsHandshake expectContinue idleConn"
_GROUPS = "groups.*.swap groups.*.exclusive groups.*.persistent groups.*.members"
_MATRIX = "matrix.vars matrix.evict_costs matrix.sets"
_MODEL = (
    "macros cmd cmdStop name description env proxy aliases checkEndpoint ttl unloadTimeout"
    " useModelName filters.stripParams filters.setParams filters.setParamsByID metadata"
    " concurrencyLimit sendLoadingState unlisted compat.ignoreWebsockets capabilities.in"
    " capabilities.out capabilities.tools capabilities.reranker capabilities.context"
)
_PEER = "proxy apiKey models filters.stripParams filters.setParams tailcatKey"
_SELECTOR = "strategy targets settings.spillover name description unlisted metadata"
_TOP = (
    "healthCheckTimeout globalTTL unloadTimeout logLevel logTimeFormat logToStdout"
    " metricsMaxInMemory captureBuffer store.path ui.activity.session_id performance.disabled"
    " performance.every startPort sendLoadingState includeAliasesInList macros apiKeys"
    " upstream.ignorePaths hooks.on_startup.preload hooks.on_startup.profile"
    " profiles.*.description profiles.*.pins routing.router.use routing.scheduler.use"
    " routing.scheduler.settings.fifo.priority tailcat.allow tailcat.models tailcat.admin"
    " tailcat.debug"
)
_ONLY_IN_ITS_LOADER = "logRequests models.*.healthCheckTimeout models.*.filters.strip_params"

DOCUMENTED: frozenset[str] = frozenset(
    [
        *_TOP.split(),
        *_GROUPS.split(),
        *_MATRIX.split(),
        *(f"routing.router.settings.{key}" for key in f"{_GROUPS} {_MATRIX}".split()),
        *(f"models.*.{key}" for key in _MODEL.split()),
        *(f"models.*.timeouts.{key}" for key in _TIMEOUTS.split()),
        *(f"selectors.*.{key}" for key in _SELECTOR.split()),
        *(f"peers.*.{key}" for key in _PEER.split()),
        *(f"peers.*.timeouts.{key}" for key in _TIMEOUTS.split()),
        *_ONLY_IN_ITS_LOADER.split(),
    ]
)
