"""The control plane's way to whatever changes what the router serves."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from llama_router.catalog.model import ModelSource
from llama_router.config.edit import Edit, LocalOnlyError, refuse_local_only
from llama_router.config.json_schema import json_schema
from llama_router.config.problems import ConfigError, Issue, Problem, format_keys
from llama_router.config.resolve import Origin, Resolved
from llama_router.config.schema import Config
from llama_router.config.secrets import redacted
from llama_router.control.facade import ControlError
from llama_router.control.facades import (
    ConfigEdit,
    ConfigText,
    DeletedInfo,
    ImportInfo,
    ParameterInfo,
    ProblemInfo,
    ProfileInfo,
    ReloadInfo,
    RescanInfo,
    SettingsInfo,
)
from llama_router.engines.parameters import Parameter, ParameterTable
from llama_router.proxy.errors import ModelNotFoundError, RequestError
from llama_router.runtime.bridge_ask import ask
from llama_router.runtime.bridge_deletion import HubCache, delete_files
from llama_router.runtime.changes import (
    Changes,
    ReloadReport,
)
from llama_router.runtime.config_editing import EditConflictError, NotEditableError
from llama_router.runtime.config_file import ReadError
from llama_router.runtime.desk import Desk
from llama_router.runtime.feed import ProfileChanged
from llama_router.runtime.overrides import OverrideError

_T = TypeVar("_T")
_PROBLEMS_MAX_COUNT = 100


class ConfigBridge:
    """Implements ConfigFacade, SettingsFacade and ProfilesFacade over ``changes``.

    Made on the data plane's loop, used on the control plane's. ``changes`` is None until the router
    has begun to serve.
    """

    def __init__(self, desk: Desk, cache: HubCache) -> None:
        self._desk = desk
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self.changes: Changes | None = None
        # A long text takes a thread, which engines need to start, for up to a minute.
        self._validating = asyncio.Lock()
        self._showing = asyncio.Lock()

    # --- ConfigFacade

    async def text(self) -> ConfigText:
        """See ConfigFacade."""
        return await self._ask(self._text())

    async def resolved(self, name: str) -> SettingsInfo:
        """See ConfigFacade."""
        return await self._ask(self._placed(name))

    async def edit(self, edits: Sequence[ConfigEdit], etag: str | None) -> tuple[str, ReloadInfo]:
        """See ConfigFacade."""
        return await self._ask(self._edit(edits, etag))

    async def validate(self, text: str) -> list[ProblemInfo]:
        """See ConfigFacade."""
        problems = await self._ask(self._validate(text))
        return [_problem_info(one) for one in problems[:_PROBLEMS_MAX_COUNT]]

    async def schema(self) -> bytes:
        """See ConfigFacade."""
        return await asyncio.to_thread(lambda: msgspec.json.encode(json_schema()))

    async def reload(self) -> ReloadInfo:
        """See ConfigFacade."""
        return _reload_info(await self._ask(self._changes.reload("POST /admin/reload")))

    async def rescan(self) -> RescanInfo:
        """See ConfigFacade."""
        report = await self._ask(self._changes.rescan())
        return RescanInfo(
            new_models=len(report.new_models),
            removed=len(report.removed),
            changed=len(report.changed),
            warnings=report.warnings,
        )

    async def import_folder(self, path: str, state: str) -> ImportInfo:
        """See ConfigFacade."""
        report = await self._ask(self._changes.import_dir(path, state))
        return ImportInfo(
            added=report.added, skipped=report.skipped, warnings=tuple(map(str, report.warnings))
        )

    # --- SettingsFacade

    async def settings(self, name: str) -> SettingsInfo:
        """See SettingsFacade."""
        return await self._ask(self._settings(name))

    async def configure(
        self, name: str, settings: Mapping[str, object], *, keep: bool
    ) -> SettingsInfo:
        """See SettingsFacade."""
        return await self._ask(self._configure(name, settings, keep=keep))

    async def drop_override(self, name: str) -> SettingsInfo:
        """See SettingsFacade."""
        return await self._ask(self._drop_override(name))

    async def parameters(self, name: str | None) -> list[ParameterInfo] | None:
        """See SettingsFacade."""
        table = await self._ask(self._table(name))
        return None if table is None else list(map(_parameter_info, table.parameters.values()))

    async def delete(self, name: str, *, force: bool) -> DeletedInfo:
        """See SettingsFacade."""
        return await self._ask(self._delete(name, force=force))

    # --- ProfilesFacade

    async def profiles(self) -> tuple[list[ProfileInfo], str]:
        """See ProfilesFacade."""
        return await self._ask(self._profiles())

    async def activate_profile(self, name: str) -> None:
        """See ProfilesFacade."""
        await self._ask(self._activate_profile(name))

    @property
    def _changes(self) -> Changes:
        if self.changes is None:
            raise ControlError(503, "unavailable", "the router is still starting")
        return self.changes

    async def _ask(self, question: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await ask(self._loop, question)
        except ConfigError as error:
            raise ControlError(400, "invalid_config", str(error)) from None
        except OverrideError as error:
            raise ControlError(400, "invalid_request", str(error), param="settings") from None
        except EditConflictError as error:
            raise ControlError(412, "config_changed", str(error), param="if-match") from None
        except NotEditableError as error:
            raise ControlError(409, "not_editable", str(error)) from None
        except ReadError as error:
            raise ControlError(500, "internal_error", str(error)) from None

    # --- on the data plane's loop

    async def _text(self) -> ConfigText:
        changes = self._changes
        async with self._showing:
            text, etag = await changes.config_text()
            try:
                shown = await changes.without_secrets(text)
            except ConfigError as error:
                raise ControlError(409, "invalid_config", str(error)) from None
        return ConfigText(path=str(changes.source.path or ""), text=shown, etag=etag)

    async def _validate(self, text: str) -> Sequence[Problem]:
        changes = self._changes
        async with self._validating:
            return await changes.validate(text)

    async def _settings(self, name: str) -> SettingsInfo:
        model = self._desk.find(name).id
        return await self._info(model, await self._changes.resolved(model))

    async def _edit(self, edits: Sequence[ConfigEdit], etag: str | None) -> tuple[str, ReloadInfo]:
        wanted = [Edit(one.op, one.path, one.value) for one in edits]
        try:
            refuse_local_only(wanted)
        except LocalOnlyError as error:
            raise ControlError(400, "local_only", str(error), param="edits") from None
        new_etag, report = await self._changes.edit_config(wanted, etag)
        return new_etag, _reload_info(report)

    async def _configure(
        self, name: str, settings: Mapping[str, object], *, keep: bool
    ) -> SettingsInfo:
        model = self._desk.find(name).id
        await self._check_parameters(model, settings.get("parameters"))
        self._check_names(model, settings.get("filters"))
        return await self._info(model, await self._changes.override(model, settings, keep=keep))

    async def _check_parameters(self, model: str, wanted: object) -> None:
        """Raise ControlError for options that the model's engine has not, or nobody may set."""
        given = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in (wanted if isinstance(wanted, dict) else {}).items()
            if value is not None
        }
        if not given:
            return
        table = await self._table(model)
        problems = ["its engine does not say which options it has"]
        if table is not None:
            problems = table.check(given)
        if problems:
            message = f"parameters: {'; '.join(problems)}"
            raise ControlError(400, "invalid_request", message, param="settings.parameters")

    def _check_names(self, model: str, filters: object) -> None:
        """Raise ControlError where a name that gets parameters of its own leads elsewhere."""
        named = filters.get("set_params_by_id") if isinstance(filters, dict) else None
        for name in named or ():
            owner = name if name in self._changes.config.selectors else ""
            with contextlib.suppress(ModelNotFoundError):
                owner = owner or self._desk.find(name).id
            if owner not in ("", model):
                message = f"filters.set_params_by_id: '{name}' is a name of '{owner}'"
                raise ControlError(400, "invalid_request", message, param="settings.filters")

    async def _table(self, name: str | None) -> ParameterTable | None:
        changes, desk = self._changes, self._desk
        spawn = changes.config.default_spawn
        if name is not None:
            spawn = desk.roster[desk.find(name).id].spawn
        return await desk.room.parameters.of(spawn.command)

    async def _delete(self, name: str, *, force: bool) -> DeletedInfo:
        found, changes = self._desk.find(name), self._changes
        if found.source is not ModelSource.CONFIG:
            startup = self._startup_edits(found.id, force=force)
            if not found.invalid:
                await self._desk.unload(found.id)
            if startup:
                await changes.edit_config(startup, None)
        return await delete_files(found, self._cache, changes.rescan)

    def _startup_edits(self, model: str, *, force: bool) -> list[Edit]:
        """Return what takes a model out of the config as startup_model. Raises ControlError.

        Without it the next start would be refused.
        """
        name = self._changes.config.startup_model
        try:
            is_startup = bool(name) and self._desk.find(name).id == model
        except RequestError:
            is_startup = False
        if is_startup and not force:
            message = (
                f"'{model}' is loaded at each start: take it out of the config's startup_model"
            )
            raise ControlError(409, "startup_model", f"{message}, or say force=true, which does so")
        return [Edit("set", ("startup_model",), "")] if is_startup else []

    async def _drop_override(self, name: str) -> SettingsInfo:
        model = self._desk.find(name).id
        return await self._info(model, await self._changes.drop_override(model))

    async def _placed(self, name: str) -> SettingsInfo:
        """Return the settings of a model, their origins with the lines of the file."""
        changes, model = self._changes, self._desk.find(name).id
        resolved = await changes.resolved(model)
        info = await self._info(model, resolved)
        issues = [Issue(one.keys, key) for key, one in resolved.origins.items() if one.keys]
        places = {one.message: one for one in await changes.located(issues)}
        origins = {key: _with_place(text, places.get(key)) for key, text in info.origins.items()}
        return msgspec.structs.replace(info, origins=origins)

    async def _info(self, model: str, resolved: Resolved) -> SettingsInfo:
        override = self._changes.overrides[model]
        return await asyncio.to_thread(_settings_info, model, resolved, override)

    async def _profiles(self) -> tuple[list[ProfileInfo], str]:
        names = self._desk.names
        found = [
            ProfileInfo(name=name, description=one.description, pins=dict(one.pins))
            for name, one in names.profiles.items()
        ]
        return found, names.profile

    async def _activate_profile(self, name: str) -> None:
        names = self._desk.names
        before = names.profile
        try:
            names.activate(name)
        except KeyError:
            raise ControlError(404, "not_found", f"there is no profile '{name}'") from None
        if name != before:
            self._desk.feed.publish(ProfileChanged(time.time(), "", name))


def _parameter_info(one: Parameter) -> ParameterInfo:
    return ParameterInfo(
        name=one.name,
        kind=one.kind.value,
        aliases=one.aliases,
        opposites=one.opposites,
        choices=one.choices,
        is_list=one.is_list,
        minimum=one.minimum,
        maximum=one.maximum,
        default=one.default,
        help=one.help,
    )


def _settings_info(model: str, resolved: Resolved, override: Mapping[str, object]) -> SettingsInfo:
    settings = resolved.entry.model_dump(mode="json", exclude={"name", "state"})
    return SettingsInfo(
        model=model,
        settings=redacted(settings, place=("models", 0)),
        origins={
            key: _in_words(origin, resolved.config) for key, origin in resolved.origins.items()
        },
        override=dict(override),
    )


def _in_words(origin: Origin, config: Config) -> str:
    """Write the place of a value so that ``llama-router config set`` takes it."""
    match origin.keys:
        case ():
            return origin.layer
        case ("models", int(index), *rest):
            place = f"models[{config.models[index].name}].{format_keys(rest)}"
        case keys:
            place = format_keys(keys)
    return f"{origin.layer} ({place})"


def _with_place(origin: str, place: Problem | None) -> str:
    """Add file and line to ``layer (key)``."""
    if place is None or not (place.file and place.line):
        return origin
    return f"{origin.removesuffix(')')}, {place.file}:{place.line})"


def _problem_info(problem: Problem) -> ProblemInfo:
    return ProblemInfo(
        message=problem.message,
        key=problem.key,
        file=str(problem.file),
        line=problem.line,
        column=problem.column,
    )


def _reload_info(report: ReloadReport) -> ReloadInfo:
    return ReloadInfo(**msgspec.structs.asdict(report))
