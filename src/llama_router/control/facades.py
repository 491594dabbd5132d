"""What the control plane may ask beside the router itself: settings, config, keys and others.

Values and what the runtime implements, by subject; the routes over them are in files of their
names. Nothing here needs the web framework: the runtime makes these values, and must not wait for
it to be imported (see `llama_router.control.thread`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec


class SettingsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is run in the end.

    ``settings`` are all of them, resolved; ``origins`` tells for each key where it comes from.
    ``override``: what of it was set by this API and not kept: it lasts until the router ends.
    """

    model: str
    settings: dict[str, object]
    origins: dict[str, str]
    override: dict[str, object] = {}


class ParameterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One option of the engine that ``parameters`` may set, as the engine describes it.

    ``kind``: flag, integer, number, choice or text. ``opposites``: names that switch a flag off.
    ``choices``: all that a choice takes, or words that do for a number. ``is_list``: several.
    """

    name: str
    kind: str
    aliases: tuple[str, ...] = ()
    opposites: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    is_list: bool = False
    minimum: float | None = None
    maximum: float | None = None
    default: str = ""
    help: str = ""


class DeletedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a deleted model's files; ``freed_bytes`` on the disk."""

    model: str
    files: tuple[str, ...]
    freed_bytes: int


class SettingsFacade(Protocol):
    """What the runtime does for these routes. Everything raises ControlError."""

    async def settings(self, name: str) -> SettingsInfo:
        """Return how a model is run."""

    async def configure(
        self, name: str, settings: Mapping[str, object], *, keep: bool
    ) -> SettingsInfo:
        """Set these over what the config says, None taking one back; ``keep``: in the file."""

    async def drop_override(self, name: str) -> SettingsInfo:
        """Forget what ``configure`` has set and not kept."""

    async def parameters(self, name: str | None) -> Sequence[ParameterInfo] | None:
        """Return the options of a model's engine, or the usual one's, that may be set.

        None: it does not say which it has, and none may be set.
        """

    async def delete(self, name: str, *, force: bool) -> DeletedInfo:
        """Delete the files of a model that nothing else uses.

        Of the config's startup_model only with ``force``, which takes it out of the file.
        """


class ConfigText(msgspec.Struct, frozen=True, kw_only=True):
    """The config file, with its secrets blacked out; ``etag`` names exactly this version of it."""

    path: str
    text: str
    etag: str


class ConfigEdit(msgspec.Struct, frozen=True):
    """One change: ``value`` set at a place of the file, or what is there removed."""

    op: Literal["set", "remove"]
    path: tuple[str | int, ...]
    value: object = None


class ProblemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a config, and where; ``line`` and ``column`` from 1, 0 if not known."""

    message: str
    key: str = ""
    file: str = ""
    line: int = 0
    column: int = 0


class ReloadInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What reading the config anew has changed, as models' ids.

    ``restart_needed``: settings that have changed in the file and take a restart.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class RescanInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How many models have come, gone and changed on disk; ``warnings``: what does not answer."""

    new_models: int
    removed: int
    changed: int = 0
    warnings: tuple[str, ...] = ()


class ImportInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder has brought: models' ids; ``skipped`` were there already."""

    added: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class ConfigFacade(Protocol):
    """What the runtime does for these routes. Everything raises ControlError."""

    async def text(self) -> ConfigText:
        """Return the file as it is now."""

    async def resolved(self, name: str) -> SettingsInfo:
        """Return how a model is run, and where each setting comes from."""

    async def edit(self, edits: Sequence[ConfigEdit], etag: str | None) -> tuple[str, ReloadInfo]:
        """Change the file, if it still is the version ``etag``; return what it is then.

        None: whichever it is.
        """

    async def validate(self, text: str) -> Sequence[ProblemInfo]:
        """Return what would be wrong with this text as the config."""

    async def schema(self) -> bytes:
        """Return the config's JSON Schema, as JSON."""

    async def reload(self) -> ReloadInfo:
        """Read the file anew."""

    async def rescan(self) -> RescanInfo:
        """Look for models on disk anew."""

    async def import_folder(self, path: str, state: str) -> ImportInfo:
        """Take all models below a folder into the config."""


class ProfileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One profile: names, each with the model that it means; "" for one that means none."""

    name: str
    description: str
    pins: dict[str, str]


class ProfilesFacade(Protocol):
    """What the runtime does for these routes. Everything raises ControlError."""

    async def profiles(self) -> tuple[Sequence[ProfileInfo], str]:
        """Return all profiles, and the name of the active one or ""."""

    async def activate_profile(self, name: str) -> None:
        """Make a profile the active one; "": none."""


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret. ``source``: "config" for those that only the file can change.

    ``last_used_s``: Unix time, to the minute; None: not since it is watched.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    requests_per_minute: int
    max_in_flight: int
    priority: int
    batch: bool
    created_s: float | None
    last_used_s: float | None
    source: str


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be."""

    name: str
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    requests_per_minute: int
    max_in_flight: int
    priority: int
    batch: bool


class KeysFacade(Protocol):
    """What the runtime does for these routes. Everything raises ControlError."""

    async def keys(self) -> Sequence[KeyInfo]:
        """Return all keys, those of the config first."""

    async def add_key(self, new: NewKey) -> tuple[KeyInfo, str]:
        """Make a key; return it with its secret, which is kept nowhere."""

    async def revoke_key(self, name: str) -> KeyInfo:
        """Revoke the key of that id or name: from now on it opens nothing."""


class DownloadInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A download. ``state`` is one of running, paused, complete, failed.

    ``model`` is the id that the model has, or will have, in the list of models; ``size`` of what is
    not known yet is None. ``note``: the last thing worth telling. ``error_code``, ``error``: why it
    has failed.
    """

    id: str
    repo: str
    tag: str
    file: str
    state: str
    created_s: float
    model: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_s: int = 0
    file_count: int = 0
    files_done_count: int = 0
    note: str = ""
    error_code: str = ""
    error: str = ""


class HitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A repository with GGUF files; 0 and "" stand for what the hub does not say."""

    repo: str
    downloads: int = 0
    likes: int = 0
    modified: str = ""
    gated: bool = False
    task: str = ""
    architecture: str = ""
    parameter_count: int = 0
    context_length: int = 0


class FileInfo(msgspec.Struct, frozen=True):
    """A file of a repository."""

    path: str
    size_bytes: int


class VariantInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A quantisation of a model.

    ``fits``: yes, no, or unknown; ``fits_because`` says why, and what that was judged by.
    ``is_cached``: whether it is on this machine. ``missing``: what the repository lacks of it.
    """

    id: str
    tag: str
    size_bytes: int
    files: tuple[FileInfo, ...]
    projector: FileInfo | None = None
    is_default: bool = False
    is_cached: bool = False
    missing: str = ""
    fits: str = "unknown"
    fits_because: str = ""


class RepoInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository holds for llama.cpp."""

    repo: str
    commit: str
    variants: tuple[VariantInfo, ...]
    projectors: tuple[FileInfo, ...]
    drafts: tuple[FileInfo, ...]


class DownloadsFacade(Protocol):
    """What the runtime does for these routes. Everything raises ControlError."""

    async def downloads(self) -> Sequence[DownloadInfo]:
        """Return all that is remembered, oldest first."""

    async def download(self, number: str) -> DownloadInfo:
        """Return one."""

    async def begin_download(self, reference: str, file: str) -> DownloadInfo:
        """Begin to download; return at once. One that is there already is resumed instead."""

    async def pause_download(self, number: str) -> DownloadInfo:
        """End it for now; what has come is kept, also over a restart."""

    async def resume_download(self, number: str) -> DownloadInfo:
        """Go on with one that was paused or has failed."""

    async def cancel_download(self, number: str) -> DownloadInfo:
        """End it, remove what has come of it, and forget it."""

    async def search_hub(self, query: str, limit: int) -> Sequence[HitInfo]:
        """Return repositories with GGUF files."""

    async def hub_files(self, repo: str) -> RepoInfo:
        """Return what a repository holds."""
