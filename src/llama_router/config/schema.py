"""What may stand in the config file: the original llama-router's schema, extended, never renamed.

Every field carries its description and, where it counts something, its unit; the reference in
``docs/configuration.md`` is tested to be complete against them. The models are frozen and strict:
``"8082"`` is no port. Use ``load`` (or ``validate``) to build them: it tells the faults of a file
apart by line and checks what spans several entries.
"""

import ipaddress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from llama_router.config import fields
from llama_router.config.fields import (
    AllowedHost,
    ApiKey,
    Command,
    Endpoints,
    FilePath,
    Folder,
    Host,
    Name,
    OwnerCheckName,
    Port,
    Priority,
    Size,
    SizeOrSizes,
    Sizes,
    Token,
    UrlPath,
    Version,
    duration,
    setting,
)
from llama_router.core.settings import CoreSettings

# No --n-gpu-layers: llama.cpp fits the layers to the memory it finds, a number switches that off.
DEFAULT_COMMAND = (
    "llama-server",
    "--jinja",
    "--model",
    "$path",
    "--mmproj",
    "$mmproj",
    "--alias",
    "$model",
    "--host",
    "$host",
    "--port",
    "$port",
)

_CORE = CoreSettings()
_T = TypeVar("_T", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


def _as_entry(value: object) -> object:
    if isinstance(value, str):
        return {"key": value}
    if not isinstance(value, dict | ApiKeyEntry):
        raise ValueError("must be a key, as text in quotes, or hold a key and its settings")  # noqa: TRY004 - pydantic makes an issue of it
    return value


def _with_names(entries: "tuple[ApiKeyEntry, ...]") -> "tuple[ApiKeyEntry, ...]":
    return tuple(
        entry if entry.name else merged(entry, {"name": default_key_name(index)})
        for index, entry in enumerate(entries)
    )


def default_key_name(index: int) -> str:
    """Return what the key at this place of ``api_keys``, counted from 0, is called."""
    return f"key {index + 1}"


class ApiKeyEntry(_Section):
    """``router.api_keys[]``: one key, or what plain text in its place stands for."""

    key: ApiKey = Field(description="The secret that its clients send.", repr=False)
    name: Annotated[
        str, Field(max_length=fields.NAME_MAX_CHARS), AfterValidator(fields.check_name)
    ] = setting(
        "", "How the status and the history call it; empty: `key` and its place in the list."
    )
    priority: Priority = setting(
        0, "Among the requests that wait for one model, those of the higher go first."
    )
    batch: bool = setting(
        False, "Whether all its requests let the interactive ones of their priority go first."
    )


class RouterSettings(_Section):
    """``router``: the router itself; its address, its patience, who may use it."""

    host: Host = setting("127.0.0.1", "Address to listen on.")
    port: Port = setting(8082, "TCP port to listen on.")
    base_port: Port = setting(50000, "First port given to engines; counted upward from here.")
    connection_timeout_s: float = duration(5, "Longest wait for a connection to an engine.")
    read_timeout_s: float = duration(
        600,
        "Longest silence of an engine within an answer; before its first byte, how often a silent"
        " one is checked for life.",
    )
    admin_token: Token = setting("", "Secret that the admin API asks for; empty: none.", repr=False)
    notify_model_swap: bool = setting(
        False, "Tell streaming clients about unloading and loading, in `reasoning_content`."
    )
    api_keys: Annotated[
        tuple[Annotated[ApiKeyEntry, BeforeValidator(_as_entry)], ...],
        AfterValidator(_with_names),
    ] = setting(
        (),
        "Keys of which clients must send one, as text or with settings of their own; none: no key"
        " is asked for.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
        repr=False,
    )
    allowed_hosts: tuple[AllowedHost, ...] = setting(
        (),
        "Names accepted in `Host`, besides `localhost` and IP addresses.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    models_dirs: tuple[Folder, ...] = setting(
        (),
        "Folders searched for models, besides the caches of Hugging Face and llama.cpp.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    ready_timeout_s: float = duration(60, "Longest load of a model, before its size is added.")
    ready_bytes_per_s: int = setting(
        50_000_000,
        "Slowest disk reckoned with: a model of this many bytes gets one second more to load.",
        unit="bytes/s",
        ge=1,
    )
    stop_grace_s: float = duration(2, "How long an engine may take to end before it is killed.")
    drain_deadline_s: float = duration(
        300,
        "How long running answers may hold up an ordered unload before they are cut; a swap waits"
        " until they end.",
    )
    shutdown_deadline_s: float = duration(
        30, "How long running answers may hold up the router's end."
    )
    half_close: Literal["abort", "serve"] = setting(
        "abort",
        "What a client that closes its sending side while it is queued gets: nothing, as it is"
        " taken to have left (`abort`), or its answer (`serve`).",
    )
    client_stall_timeout_s: float = duration(
        120, "How long a client may take nothing of its answer before it is cut off."
    )
    max_connections: int = setting(
        0,
        "Most client connections at a time; 0: as many as the limit of file descriptors allows.",
        ge=0,
        le=fields.CONNECTIONS_MAX_COUNT,
    )
    policy: Literal["benefit", "arrival"] = setting(
        "benefit",
        "Which model is loaded next when they do not all fit: where loading saves the most waiting"
        " (`benefit`), or that of the oldest request (`arrival`).",
    )
    memory: Sizes = setting(
        {},
        "How much of each device's memory models may take, in place of what was found, such as"
        " `cpu: 48GiB` or `cuda0: 22GiB`; 0: nothing of it.",
    )
    memory_reserve: Size | None = setting(
        None,
        "What is left free on each device that was found; absent: 1 GiB of a graphics card, a"
        " tenth of the RAM.",
    )
    memory_aware: bool = setting(
        True,
        "Load models side by side as far as they fit into memory; false: memory is not looked at,"
        " and a model without a group runs alone.",
    )
    max_loaded: int = setting(
        _CORE.max_loaded,
        "Most models loaded at a time; 0: as many as fit.",
        ge=0,
        le=fields.MODELS_MAX_COUNT,
    )
    max_wait_s: float = duration(
        _CORE.max_wait_s,
        "Longest wait for a model that others keep out: after it the model is loaded next.",
    )
    min_residency_s: float = duration(
        _CORE.min_residency_s,
        "How long a loaded model stays at least, unless somebody has waited `max_wait_s`.",
        can_be_0=True,
    )
    max_queue_s: float = duration(
        _CORE.max_queue_s,
        "Longest wait of a request, load included, before it gets 503; 0: no end.",
        can_be_0=True,
    )
    ttl_s: float = duration(
        0.0, "How long after its last answer an unused model is unloaded; 0: never.", can_be_0=True
    )
    max_keep_alive_s: float | None = duration(
        None,
        "Longest `keep_alive` (Ollama) or `ttl` (LM Studio) that a request may ask for; absent:"
        " any, 0: requests have no say.",
        can_be_0=True,
    )
    preload: tuple[Name, ...] = setting(
        (),
        "Models loaded at the start, side by side as far as they fit, while requests are already"
        " accepted.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    first_byte_timeout_s: float = duration(
        0.0,
        "Longest silence of an engine before the first byte of its answer, in which it reads the"
        " prompt and, unless the answer is streamed, writes all of it; 0: no limit.",
        can_be_0=True,
    )
    history: bool = setting(
        True, "Remember when which model was asked for (no content), for `llama-router record`."
    )
    max_waiting: int = setting(
        _CORE.max_waiting,
        "Most requests that may wait for one model; more get 429.",
        ge=1,
        le=fields.WAITING_MAX_COUNT,
    )
    allow_public_without_keys: bool = setting(
        False, "Allow a `host` that others can reach without `api_keys`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least severe messages to log."
    )

    def load_deadline_s(self, size_bytes: int) -> float:
        """How long a model of this size may take until it answers."""
        return self.ready_timeout_s + size_bytes / self.ready_bytes_per_s


class SpawnSettings(_Section):
    """``default_spawn``: how engines are started."""

    command: Command = setting(
        DEFAULT_COMMAND, "Program and arguments of the engine, with placeholders; no shell."
    )
    proxy_endpoints: Endpoints | None = setting(
        None, "Path prefixes that clients may use; absent: every inference route."
    )
    health_endpoint: UrlPath = setting("/health", "Path that answers 200 once the engine is ready.")
    owner_check: OwnerCheckName = setting(
        "tree",
        "Whose listener is believed: only one of the engine's own processes (`tree`), or any on"
        " its port (`port`; for `docker run`, `sudo` and the like).",
    )


class SpawnOverride(_Section):
    """``models[].spawn``: what is different for one model. Absent keys are as in default_spawn."""

    command: Command | None = setting(None, "As in `default_spawn`.")
    proxy_endpoints: Endpoints | None = setting(None, "As in `default_spawn`.")
    health_endpoint: UrlPath | None = setting(None, "As in `default_spawn`.")
    owner_check: OwnerCheckName | None = setting(None, "As in `default_spawn`.")


class ModelEntry(_Section):
    """``models[]``: one model."""

    name: Name = Field(description="How requests name it.")
    path: FilePath = setting("", "The GGUF file; empty if the command needs none.")
    state: Literal["manual", "auto"] = setting(
        "manual", "`auto` entries come and go with their files, `manual` ones stay."
    )
    group: str = setting(
        "",
        "A named group runs together, and beside no model outside it; empty: memory and"
        " `max_loaded` alone decide.",
        max_length=fields.NAME_MAX_CHARS,
    )
    spawn: SpawnOverride = setting(
        SpawnOverride(), "What is different from `default_spawn` for this model."
    )
    aliases: tuple[Name, ...] = setting(
        (), "Further names that requests may use.", strict=False, max_length=fields.LIST_MAX_COUNT
    )
    mmproj: FilePath = setting(
        "", "The projector file of a vision or audio model; empty: one found beside the model."
    )
    memory: SizeOrSizes | None = setting(
        None,
        "What it takes, for engines of which that cannot be told from the file: one size, on the"
        " first graphics card or else of RAM, or one for each device; absent: estimated, then"
        " measured.",
    )
    ttl_s: float | None = duration(
        None, "As `router.ttl_s`, for this model; absent: that, 0: never.", can_be_0=True
    )
    pinned: bool = setting(
        False, "Once loaded it stays: neither `ttl_s` nor other models unload it."
    )
    priority: Priority = setting(
        0, "The higher is loaded first, and never makes room early for a lower one."
    )
    max_in_flight: int = setting(
        0,
        "Most requests that its engine gets at a time, the others wait; 0: as many as its command"
        " gives it slots, or any number.",
        ge=0,
        le=fields.CONNECTIONS_MAX_COUNT,
    )
    max_waiting: int = setting(
        0,
        "Most requests that may wait for it, more get 429; 0: as `router.max_waiting`.",
        ge=0,
        le=fields.WAITING_MAX_COUNT,
    )
    min_residency_s: float | None = duration(
        None, "As `router.min_residency_s`, for this model; absent: that.", can_be_0=True
    )


class Config(_Section):
    """The whole file."""

    version: Version = setting("1.0", "Version of this schema.")
    startup_model: str = setting(
        "", "Model loaded before the router accepts requests; empty: none.", max_length=1024
    )
    router: RouterSettings = setting(RouterSettings(), "The router itself.")
    default_spawn: SpawnSettings = setting(SpawnSettings(), "How engines are started.")
    models: tuple[ModelEntry, ...] = setting(
        (),
        "Models with settings of their own; others are found without an entry.",
        strict=False,
        max_length=fields.MODELS_MAX_COUNT,
    )

    def spawn_of(self, model: ModelEntry | None = None) -> SpawnSettings:
        """How the engine of ``model`` is started: ``default_spawn`` with its overrides."""
        if model is None:
            return self.default_spawn
        return merged(self.default_spawn, model.spawn.model_dump(exclude_none=True))


def merged(section: _T, changes: dict[str, Any]) -> _T:
    """Give ``section`` with some fields replaced by values that were validated before."""
    return section.model_copy(update=changes) if changes else section


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``.

    True for 127.0.0.0/8, ::1 (RFC 5735, RFC 4291; also IPv4-mapped) and ``localhost``. Any other
    name counts as public, whatever it resolves to today.
    """
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def public_bind_problem(router: RouterSettings) -> str | None:
    """Say why the router must not listen on its ``host``; None when it may.

    Whoever reaches the port can use every model and, through prompts and logs, see those of
    others. That has to be wished for in so many words.
    """
    if is_loopback(router.host) or router.api_keys or router.allow_public_without_keys:
        return None
    return (
        f"{router.host} can be reached from other machines and no key protects the router; "
        "either listen on this machine only (router.host: 127.0.0.1), "
        "or ask for keys (router.api_keys: [a-long-random-string]), "
        "or accept it (router.allow_public_without_keys: true)"
    )
