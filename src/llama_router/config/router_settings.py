"""``router``: the router itself, its address, its patience, and who may use it."""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from llama_router.config import fields
from llama_router.config.fields import (
    AllowedHost,
    ApiKey,
    Folder,
    Host,
    Name,
    PathPattern,
    Port,
    Priority,
    Size,
    Sizes,
    Token,
    duration,
    setting,
)
from llama_router.config.section import Section, merged
from llama_router.core.settings import CoreSettings

_CORE = CoreSettings()


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


class ApiKeyEntry(Section):
    """``router.api_keys[]``: one key, or what plain text in its place stands for."""

    key: ApiKey = Field(
        description="The secret that its clients send, or `sha256:` and its digest in hex.",
        repr=False,
    )
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
    scopes: tuple[Literal["inference", "admin"], ...] | None = setting(
        None,
        "What it opens; absent: `inference`, and `admin` too while there is no `admin_token`.",
        strict=False,
        min_length=1,
        max_length=2,
    )
    models: tuple[Name, ...] = setting(
        (),
        "Names or patterns (`qwen*`) of the models that it may use; none: all.",
        strict=False,
        max_length=fields.LIST_MAX_COUNT,
    )
    requests_per_minute: int = setting(
        0,
        "Most inference requests in a minute; more get 429; 0: any number.",
        ge=0,
        le=fields.REQUESTS_PER_MINUTE_MAX_COUNT,
    )
    max_in_flight: int = setting(
        0,
        "Most requests running or waiting at a time; more get 429; 0: any number.",
        ge=0,
        le=fields.CONNECTIONS_MAX_COUNT,
    )


class RouterSettings(Section):
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
    watch_models: bool = setting(
        True, "Notice models that come and go in the folders, without a rescan being asked for."
    )
    watch_config: bool = setting(False, "Reload this file whenever it changes.")
    include_aliases_in_list: bool = setting(
        False, "Whether the list of models has an entry for each alias, too."
    )
    upstream_ignore_paths: tuple[PathPattern, ...] = setting(
        (),
        "Regular expressions; a path below `/upstream/MODEL` that one of them finds does not load"
        " the model (409).",
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
    history_prompts: bool = setting(
        False, "Keep what was asked in the history, too; `history` has to be on."
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


def public_bind_problem(router: RouterSettings, *, has_more_keys: bool = False) -> str | None:
    """Say why the router must not listen on its ``host``; None when it may.

    ``has_more_keys``: whether there are keys that do not stand in the config.
    Whoever reaches the port can use every model and, through prompts and logs, see those of
    others. That has to be wished for in so many words.
    """
    if is_loopback(router.host) or router.api_keys or router.allow_public_without_keys:
        return None
    if has_more_keys:
        return None
    return (
        f"{router.host} can be reached from other machines and no key protects the router; "
        "either listen on this machine only (router.host: 127.0.0.1), "
        "or ask for keys (router.api_keys: [a-long-random-string]), "
        "or accept it (router.allow_public_without_keys: true)"
    )
