"""What the environment says of the hub, under the names that other programs read, too."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llama_router.hub.addresses import DEFAULT_ENDPOINT

# huggingface_hub, constants.py.
_TRUE = ("1", "on", "yes", "true")
_TOKEN_MAX_BYTES = 4096
_TOKEN = re.compile(r"[!-~]{1,1024}")
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class HubSource(msgspec.Struct, frozen=True):
    """Where the hub is, who is asking, and whether it is to be asked at all."""

    endpoint: str
    token: str
    is_offline: bool

    def __repr__(self) -> str:
        return f"HubSource({self.endpoint}, {'with' if self.token else 'without'} a token)"


def source(
    env: Mapping[str, str],
    home: Path,
    *,
    endpoint: str = "",
    token: str = "",
    is_offline: bool = False,
) -> HubSource:
    """Return what is given, or else what the environment says. Reads a file: for a thread.

    The token of huggingface_hub's file is for the hub alone that it was made for.
    """
    said = endpoint or env.get("MODEL_ENDPOINT", "") or env.get("HF_ENDPOINT", "")
    chosen = (said or DEFAULT_ENDPOINT).strip().rstrip("/")
    found = token or next(filter(None, (env.get(name, "") for name in TOKEN_VARIABLES)), "")
    if not found and (chosen == DEFAULT_ENDPOINT or env.get("HF_TOKEN_PATH")):
        found = _read_token(_token_path(env, home))
    found = found.strip()
    offline = is_offline or any(
        env.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
    return HubSource(chosen, found if _TOKEN.fullmatch(found) else "", offline)


def _token_path(env: Mapping[str, str], home: Path) -> Path:
    if env.get("HF_TOKEN_PATH"):
        return Path(env["HF_TOKEN_PATH"])
    if env.get("HF_HOME"):
        return Path(env["HF_HOME"], "token")
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"], "huggingface", "token")
    return home / ".cache" / "huggingface" / "token"


def _read_token(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_TOKEN_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
