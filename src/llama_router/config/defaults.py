"""Where the config is when nobody says so, and what the first run writes there."""

import json
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_router.config import files
from llama_router.config.json_schema import json_schema
from llama_router.config.problems import ConfigError, Problem
from llama_router.config.schema import DEFAULT_COMMAND

FILE_NAME = "config.yaml"
_FOLDER_NAME = "llama-router"
# Where editors look for the line that names the schema.
_HEAD_MAX_BYTES = 4096

_COMMAND = "\n".join(f"    - {argument}" for argument in DEFAULT_COMMAND)

SCHEMA_NAME = "config.schema.json"

TEMPLATE = f"""\
# yaml-language-server: $schema={SCHEMA_NAME}
# llama-router's configuration. Every setting is described in docs/configuration.md.
# Lines that begin with "# " and a key show defaults: remove the "# " to change one.
version: "1.0"

# The model that is loaded before the router accepts requests; empty: none.
startup_model: ""

router:
  host: 127.0.0.1
  port: 8082
  # Engines get ports from here upward.
  base_port: 50000
  # Folders with models, besides the caches of Hugging Face and llama.cpp.
  # models_dirs: []
  # Memory left free on each device; no value: 1 GiB of a graphics card, a tenth of the RAM.
  # memory_reserve:
  # Most models loaded at a time; 0: as many as fit.
  # max_loaded: 0
  # Seconds after which an unused model is unloaded; 0: never.
  # ttl_s: 0
  # Keys of which clients must send one. A host that others can reach needs them.
  # api_keys: []
  # Names, besides localhost and IP addresses, under which browsers may reach the router.
  # allowed_hosts: []
  # admin_token: ""
  # Tell streaming clients about unloading and loading.
  # notify_model_swap: false
  # Seconds to connect to an engine, and of an engine's silence within a request.
  # connection_timeout_s: 5
  # read_timeout_s: 600
  # log_level: info

# How engines are started. Filled in: $path, $mmproj (its option goes too when the model has no
# projector), $host, $port, $model (the model's id); $$ is a dollar sign.
# llama-server is the one found beside llama-router, then on PATH, then the embedded one.
default_spawn:
  command:
{_COMMAND}
  health_endpoint: /health

# Models are found by themselves. An entry gives one settings of its own, or adds one:
#
# models:
#   - name: qwen-long
#     path: ~/models/Qwen3-8B-Q4_K_M.gguf
#     pinned: true            # once loaded it stays
#     spawn:
#       command: [llama-server, --jinja, --ctx-size, "32768", --model, $path,
#                 --host, $host, --port, $port]
models: []
"""


@dataclass(frozen=True, slots=True)
class DefaultPath:
    """Where the config is, or is to be made. ``note`` is to be shown to the operator, if any."""

    path: Path
    note: str = ""


def default_path(platform: str, env: Mapping[str, str], home: Path) -> DefaultPath:
    """Find the config's place by the platform's convention (as platformdirs has it).

    ``platform`` is one of ``sys.platform``. The original llama-router's file is taken when there
    is one and none of our own.
    """
    path = _config_folder(platform, env, home) / FILE_NAME
    original = home / ".config" / "llama.cpp" / "router-config.json"
    if not files.is_there(path) and files.is_there(original):
        return DefaultPath(
            original, f"using the original llama-router's config; {path} would come first"
        )
    return DefaultPath(path)


def _config_folder(platform: str, env: Mapping[str, str], home: Path) -> Path:
    if platform == "win32":
        base = env.get("LOCALAPPDATA") or str(home / "AppData" / "Local")
        return Path(base) / _FOLDER_NAME
    # The XDG specification: "If an implementation encounters a relative path … ignore it."
    xdg = env.get("XDG_CONFIG_HOME", "")
    if posixpath.isabs(xdg):
        return Path(xdg) / _FOLDER_NAME
    if platform == "darwin":
        return home / "Library" / "Application Support" / _FOLDER_NAME
    return home / ".config" / _FOLDER_NAME


def create_default(path: Path) -> None:
    """Write the first config, readable by its owner only; a file that exists stays as it is.

    Beside it gets its schema, for editors. Two first starts at once are harmless: both write the
    same. Raises ConfigError.
    """
    if os.path.lexists(path):  # links to nowhere, too
        return
    text = TEMPLATE.replace(SCHEMA_NAME, schema_path(path).name, 1)
    try:
        files.replace(path, text.encode())
    except files.FileError as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from error
    refresh_schema(path)


def schema_path(path: Path) -> Path:
    """Return where the schema of the config at ``path`` is written."""
    return path.with_name(f"{path.stem}.schema.json")


def refresh_schema(path: Path) -> bool:
    """Write the schema beside the config whose first lines name it, unless it is there already.

    Return whether it is as it should be. Nothing depends on it: an editor is all that reads it.
    Reads and writes files: not for an event loop.
    """
    target = schema_path(path)
    try:
        head = files.read_bytes(path)[:_HEAD_MAX_BYTES]
        if f"$schema={target.name}".encode() not in head:
            return False
        content = json.dumps(json_schema(), indent=1, ensure_ascii=False).encode() + b"\n"
        if target.exists() and files.read_bytes(target) == content:
            return True
        files.replace(target, content)
    except files.FileError:
        return False
    return True
