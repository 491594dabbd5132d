"""What the control plane needs beside the router itself, in the hands of a test."""

from collections.abc import Mapping, Sequence

import msgspec

from llama_router.control.facade import ControlError
from llama_router.control.facades import (
    ConfigEdit,
    ConfigText,
    DeletedInfo,
    ImportInfo,
    KeyInfo,
    NewKey,
    ParameterInfo,
    ProblemInfo,
    ProfileInfo,
    ReloadInfo,
    RescanInfo,
    SettingsInfo,
)


class Settings:
    """Settings of models, as they are set."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, object]] = {}
        self.kept: list[str] = []

    async def settings(self, name: str) -> SettingsInfo:
        override = self.values.get(name, {})
        return SettingsInfo(
            model=name,
            settings={"ttl_s": 60.0, "pinned": False, **override},
            origins={"ttl_s": "router (router.ttl_s)"},
            override=override,
        )

    async def configure(
        self, name: str, settings: Mapping[str, object], *, keep: bool
    ) -> SettingsInfo:
        self.values[name] = {k: v for k, v in settings.items() if v is not None}
        self.kept += [name] * keep
        return await self.settings(name)

    async def drop_override(self, name: str) -> SettingsInfo:
        self.values.pop(name, None)
        return await self.settings(name)

    async def parameters(self, name: str | None) -> Sequence[ParameterInfo] | None:
        if name == "mute":
            return None
        return [ParameterInfo(name="ctx-size", kind="integer", aliases=("c",), default="0")]

    async def delete(self, name: str, *, force: bool) -> DeletedInfo:  # noqa: ARG002
        return DeletedInfo(model=name, files=(f"{name}.gguf",), freed_bytes=5)


class Configuration:
    """A config file of one line."""

    def __init__(self) -> None:
        self.etag = "v1"
        self.error: ControlError | None = None
        self.edits: list[ConfigEdit] = []

    async def text(self) -> ConfigText:
        return ConfigText(path="/c/router.json", text='{"version": "1.0"}', etag=self.etag)

    async def resolved(self, name: str) -> SettingsInfo:
        if name != "org/alpha:Q4":
            raise ControlError(404, "model_not_found", f"no model {name}")
        return SettingsInfo(model=name, settings={"ttl_s": 1.0}, origins={"ttl_s": "built in"})

    async def edit(self, edits: Sequence[ConfigEdit], etag: str | None) -> tuple[str, ReloadInfo]:
        if etag is not None and etag != self.etag:
            raise ControlError(412, "config_changed", "it has been changed meanwhile")
        self.edits += edits
        self.etag += "+"
        return self.etag, ReloadInfo(changed=("alpha",))

    async def validate(self, text: str) -> Sequence[ProblemInfo]:
        if text == "good":
            return []
        return [ProblemInfo(message="must be good", key="version", file="f", line=1, column=2)]

    async def schema(self) -> bytes:
        return b'{"type": "object"}'

    async def reload(self) -> ReloadInfo:
        if self.error is not None:
            raise self.error
        return ReloadInfo(added=("beta",), restart_needed=("router.port",))

    async def rescan(self) -> RescanInfo:
        return RescanInfo(new_models=2, removed=1)

    async def import_folder(self, path: str, state: str) -> ImportInfo:
        return ImportInfo(added=(f"{state} of {path}",))


class Profiles:
    """One profile."""

    def __init__(self) -> None:
        self.active = ""

    async def profiles(self) -> tuple[Sequence[ProfileInfo], str]:
        return [ProfileInfo(name="work", description="d", pins={"a": "b"})], self.active

    async def activate_profile(self, name: str) -> None:
        if name not in ("", "work"):
            raise ControlError(404, "not_found", f"there is no profile '{name}'")
        self.active = name


class KeyHolder:
    """Keys in memory."""

    SECRET = "lr-shown-once"

    def __init__(self) -> None:
        self.held: list[KeyInfo] = []

    async def keys(self) -> Sequence[KeyInfo]:
        return self.held

    async def add_key(self, new: NewKey) -> tuple[KeyInfo, str]:
        info = KeyInfo(
            id=f"id{len(self.held)}",
            created_s=1.7e9,
            last_used_s=None,
            source="store",
            **msgspec.structs.asdict(new),
        )
        self.held.append(info)
        return info, self.SECRET

    async def revoke_key(self, name: str) -> KeyInfo:
        for info in self.held:
            if name in (info.id, info.name):
                self.held.remove(info)
                return info
        raise ControlError(404, "not_found", f"there is no key '{name}'")
