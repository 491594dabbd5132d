"""What may stand in the config file: the original llama-router's schema, extended, never renamed.

Every field carries its description and, where it counts something, its unit; the reference in
``docs/configuration.md`` is tested to be complete against them. The models are frozen and strict:
``"8082"`` is no port. Use ``load`` (or ``validate``) to build them: it tells the faults of a file
apart by line and checks what spans several entries.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

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

# A week: longer than any load or answer; a longer number is a slip (milliseconds, say).
LONGEST_S = 7 * 24 * 3600.0
# Room for a whole model folder listed by an import, far from what a person would write.
MODELS_MAX_COUNT = 10_000
# Linux allows 128 KiB per argument; templates need a fraction of it.
ARGUMENT_MAX_CHARS = 16 * 1024
ARGUMENTS_MAX_COUNT = 1024
LIST_MAX_COUNT = 1024
NAME_MAX_CHARS = 256
KEY_MAX_CHARS = 512
CONNECTIONS_MAX_COUNT = 1_000_000
WAITING_MAX_COUNT = 1_000_000

CommandCheck = Callable[[Sequence[str]], None]
"""Raises ValueError, saying what is wrong, for a command that could never run."""

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\.?")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_T = TypeVar("_T", bound=BaseModel)


def _setting(default: Any, description: str, *, unit: str = "", **limits: Any) -> Any:  # noqa: ANN401 - pydantic types Field so
    return Field(
        default,
        description=description,
        json_schema_extra={"unit": unit} if unit else None,
        **limits,
    )


def _duration(default_s: float, description: str) -> Any:  # noqa: ANN401 - as above
    return _setting(
        float(default_s), description, unit="s", gt=0, le=LONGEST_S, allow_inf_nan=False
    )


def _check_version(value: object) -> object:
    # `version: 1.0` without quotes is a number in YAML, and what everybody writes.
    return "1.0" if value == 1.0 and not isinstance(value, bool) else value


def _check_name(value: str) -> str:
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _check_host(value: str) -> str:
    if value.startswith("["):
        raise ValueError("write an IPv6 address without brackets")
    if "://" in value or "/" in value:
        raise ValueError("must be an address or a name alone, without http:// or a path")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if ":" in value:
            raise ValueError("must not contain a port; it has a key of its own") from None
        if not _HOST_NAME.fullmatch(value):
            raise ValueError("is neither an IP address nor a host name") from None
    return value


def _check_allowed_host(value: str) -> str:
    return _check_host(value).lower().rstrip(".")


def _check_key(value: str) -> str:
    if not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("must be visible ASCII characters, as it has to fit an HTTP header")
    return value


def _check_token(value: str) -> str:
    return _check_key(value) if value else value


def _check_url_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must begin with /")
    if not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("must be visible ASCII characters; percent-encode others")
    return value


def _check_argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _check_path(value: str) -> str:
    if any(ord(char) < ord(" ") for char in value):
        raise ValueError("must not contain control characters")
    return value


def _check_command(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    check: CommandCheck | None = (info.context or {}).get("check_command")
    if check is not None:
        check(value)
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_check_name)]
Host = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_host)]
AllowedHost = Annotated[
    str, Field(min_length=1, max_length=255), AfterValidator(_check_allowed_host)
]
ApiKey = Annotated[str, Field(min_length=1, max_length=KEY_MAX_CHARS), AfterValidator(_check_key)]
Token = Annotated[str, Field(max_length=KEY_MAX_CHARS), AfterValidator(_check_token)]
UrlPath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_check_url_path)]
FilePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_path)]
Folder = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_path)]
Argument = Annotated[str, Field(max_length=ARGUMENT_MAX_CHARS), AfterValidator(_check_argument)]
Command = Annotated[
    tuple[Argument, ...],
    Field(strict=False, min_length=1, max_length=ARGUMENTS_MAX_COUNT),
    AfterValidator(_check_command),
]
Endpoints = Annotated[tuple[UrlPath, ...], Field(strict=False, max_length=LIST_MAX_COUNT)]
OwnerCheckName = Literal["tree", "port"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class RouterSettings(_Section):
    """``router``: the router itself; its address, its patience, who may use it."""

    host: Host = _setting("127.0.0.1", "Address to listen on.")
    port: Port = _setting(8082, "TCP port to listen on.")
    base_port: Port = _setting(50000, "First port given to engines; counted upward from here.")
    connection_timeout_s: float = _duration(5, "Longest wait for a connection to an engine.")
    read_timeout_s: float = _duration(
        600, "Longest silence of an engine within a request, reading the prompt included."
    )
    admin_token: Token = _setting(
        "", "Secret that the admin API asks for; empty: none.", repr=False
    )
    notify_model_swap: bool = _setting(
        False, "Tell streaming clients about unloading and loading, in `reasoning_content`."
    )
    api_keys: tuple[ApiKey, ...] = _setting(
        (),
        "Keys of which clients must send one; none: no key is asked for.",
        strict=False,
        max_length=LIST_MAX_COUNT,
        repr=False,
    )
    allowed_hosts: tuple[AllowedHost, ...] = _setting(
        (),
        "Names accepted in `Host`, besides `localhost` and IP addresses.",
        strict=False,
        max_length=LIST_MAX_COUNT,
    )
    models_dirs: tuple[Folder, ...] = _setting(
        (),
        "Folders searched for models, besides the caches of Hugging Face and llama.cpp.",
        strict=False,
        max_length=LIST_MAX_COUNT,
    )
    ready_timeout_s: float = _duration(60, "Longest load of a model, before its size is added.")
    ready_bytes_per_s: int = _setting(
        50_000_000,
        "Slowest disk reckoned with: a model of this many bytes gets one second more to load.",
        unit="bytes/s",
        ge=1,
    )
    stop_grace_s: float = _duration(2, "How long an engine may take to end before it is killed.")
    drain_deadline_s: float = _duration(
        300, "How long running answers may hold up a change of the model."
    )
    shutdown_deadline_s: float = _duration(
        30, "How long running answers may hold up the router's end."
    )
    half_close: Literal["abort", "serve"] = _setting(
        "abort",
        "What a client that closes its sending side while it is queued gets: nothing, as it is"
        " taken to have left (`abort`), or its answer (`serve`).",
    )
    client_stall_timeout_s: float = _duration(
        120, "How long a client may take nothing of its answer before it is cut off."
    )
    max_connections: int = _setting(
        0,
        "Most client connections at a time; 0: as many as the limit of file descriptors allows.",
        ge=0,
        le=CONNECTIONS_MAX_COUNT,
    )
    max_waiting: int = _setting(
        1000,
        "Most requests that may wait for one model; more get 429.",
        ge=1,
        le=WAITING_MAX_COUNT,
    )
    allow_public_without_keys: bool = _setting(
        False, "Allow a `host` that others can reach without `api_keys`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "Least severe messages to log."
    )

    def load_deadline_s(self, size_bytes: int) -> float:
        """How long a model of this size may take until it answers."""
        return self.ready_timeout_s + size_bytes / self.ready_bytes_per_s


class SpawnSettings(_Section):
    """``default_spawn``: how engines are started."""

    command: Command = _setting(
        DEFAULT_COMMAND, "Program and arguments of the engine, with placeholders; no shell."
    )
    proxy_endpoints: Endpoints | None = _setting(
        None, "Path prefixes that clients may use; absent: every inference route."
    )
    health_endpoint: UrlPath = _setting(
        "/health", "Path that answers 200 once the engine is ready."
    )
    owner_check: OwnerCheckName = _setting(
        "tree",
        "Whose listener is believed: only one of the engine's own processes (`tree`), or any on"
        " its port (`port`; for `docker run`, `sudo` and the like).",
    )


class SpawnOverride(_Section):
    """``models[].spawn``: what is different for one model. Absent keys are as in default_spawn."""

    command: Command | None = _setting(None, "As in `default_spawn`.")
    proxy_endpoints: Endpoints | None = _setting(None, "As in `default_spawn`.")
    health_endpoint: UrlPath | None = _setting(None, "As in `default_spawn`.")
    owner_check: OwnerCheckName | None = _setting(None, "As in `default_spawn`.")


class ModelEntry(_Section):
    """``models[]``: one model."""

    name: Name = Field(description="How requests name it.")
    path: FilePath = _setting("", "The GGUF file; empty if the command needs none.")
    state: Literal["manual", "auto"] = _setting(
        "manual", "`auto` entries come and go with their files, `manual` ones stay."
    )
    group: str = _setting(
        "",
        "Models of one group may run together; empty: it runs alone.",
        max_length=NAME_MAX_CHARS,
    )
    spawn: SpawnOverride = _setting(
        SpawnOverride(), "What is different from `default_spawn` for this model."
    )
    aliases: tuple[Name, ...] = _setting(
        (), "Further names that requests may use.", strict=False, max_length=LIST_MAX_COUNT
    )
    mmproj: FilePath = _setting(
        "", "The projector file of a vision or audio model; empty: one found beside the model."
    )


class Config(_Section):
    """The whole file."""

    version: Annotated[Literal["1.0"], BeforeValidator(_check_version)] = _setting(
        "1.0", "Version of this schema."
    )
    startup_model: str = _setting(
        "", "Model loaded before the router accepts requests; empty: none.", max_length=1024
    )
    router: RouterSettings = _setting(RouterSettings(), "The router itself.")
    default_spawn: SpawnSettings = _setting(SpawnSettings(), "How engines are started.")
    models: tuple[ModelEntry, ...] = _setting(
        (),
        "Models with settings of their own; others are found without an entry.",
        strict=False,
        max_length=MODELS_MAX_COUNT,
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
