"""All API keys, those of the config and those made while running, and how they come to hold.

Whoever goes by a key's name (limits, lists of models, the history) means one key. So a stored key
is out of force, and opens nothing, as long as the config has one of its name, or the same one.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from llama_router.config.schema import Config, RouterSettings, is_loopback
from llama_router.control.facade import ControlError
from llama_router.control.facades import KeyInfo, NewKey
from llama_router.proxy.caller import ADMIN, INFERENCE
from llama_router.proxy.keys import ApiKey, rule_of
from llama_router.runtime.config_file import ReadError
from llama_router.store.keys import (
    KeyFile,
    KeyFileBusyError,
    KeyFileError,
    KeyNameTakenError,
    KeyRecord,
)

_T = TypeVar("_T")

SECRET_PREFIX = "lr-"  # noqa: S105 - what secrets begin with
_SECRET_BYTES = 32
_ID_BYTES = 6
# How fresh the file is about when keys were used; each is a write of the file.
USE_INTERVAL_S = 60.0
# A pattern that fits the name of no model.
_NO_MODEL = ("",)


class UsedKeys(Protocol):
    """Who sees requests: the names of the keys that they have come with."""

    def take_used_keys(self) -> set[str]:
        """Return the names since the last call. For the data plane's loop."""


class Keys:
    """Implements KeysFacade. ``apply`` makes the rules hold that ``rules`` returns by then.

    Made and applied on the data plane's loop; the facade is for the control plane's.
    """

    def __init__(
        self, file: KeyFile, settings: RouterSettings, apply: Callable[[], object]
    ) -> None:
        self._file = file
        self._settings = settings
        self._apply = apply
        self._loop = asyncio.get_running_loop()
        self._changing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        # Of the config's keys, which the file does not know.
        self._used_s: dict[str, float] = {}
        self._rules: tuple[ApiKey, ...] = ()
        self._stored: tuple[KeyRecord, ...] = ()
        # Ids of those that are out of force.
        self._eclipsed: frozenset[str] = frozenset()
        self._patterns: dict[str, tuple[str, ...]] = {}
        self._take_stock()

    def rules(self) -> tuple[ApiKey, ...]:
        """Return what holds now: the config's keys first."""
        return self._rules

    def patterns_of(self, name: str) -> tuple[str, ...]:
        """Return the models that the key of this name is for, as patterns; none: all.

        Who has come without a key ("") may see all; whose key is gone meanwhile, none.
        """
        return self._patterns.get(name, _NO_MODEL) if name else ()

    def configure(self, settings: RouterSettings) -> None:
        """Take other settings; whoever says so applies the rules."""
        self._settings = settings
        self._take_stock()

    def reread(self, config: Config) -> list[str]:
        """Read the stored keys again; they hold once this config does, see ``configure``.

        Returns doubts about them, in words. Blocks: not for the event loop. Raises ReadError.
        """
        try:
            self._file.refresh()
        except KeyFileError as error:
            raise ReadError(str(error)) from None
        return _doubts(config.router, self._file.keys)

    def doubts(self) -> list[str]:
        """Say what is likely not meant of the keys that there are, in words."""
        return _doubts(self._settings, self._stored)

    def _take_stock(self) -> None:
        # Kept: of a thousand keys they take some milliseconds, and lists of models ask for them.
        self._stored = self._file.keys
        self._eclipsed = frozenset(one.id for one in _eclipsed(self._settings, self._stored))
        self._rules = (*config_rules(self._settings), *map(_stored_rule, self._in_force()))
        self._patterns = {rule.name: rule.models for rule in self._rules}

    def _in_force(self) -> list[KeyRecord]:
        return [one for one in self._stored if one.id not in self._eclipsed]

    def watch(self, used: UsedKeys) -> None:
        """Remember from now on, coarsely, when keys are used."""
        self._watching = self._loop.create_task(self._watch(used), name="used keys")

    async def close(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
            self._watching = None

    # --- KeysFacade, on the control plane's loop

    async def keys(self) -> list[KeyInfo]:
        """See KeysFacade."""
        configured = [
            _info(
                msgspec.structs.replace(rule, scopes=self._scopes(rule)),
                f"config-{number}",
                None,
                self._used_s.get(rule.name),
                "config",
            )
            for number, rule in enumerate(config_rules(self._settings), 1)
        ]
        return [*configured, *map(self._stored_info, self._stored)]

    async def add_key(self, new: NewKey) -> tuple[KeyInfo, str]:
        """See KeysFacade."""
        return await self._ask(self._add(new))

    async def revoke_key(self, name: str) -> KeyInfo:
        """See KeysFacade."""
        return await self._ask(self._revoke(name))

    async def _ask(self, question: Coroutine[object, object, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._loop))

    # --- on the data plane's loop

    async def _add(self, new: NewKey) -> tuple[KeyInfo, str]:
        async with self._changing:
            rules = self.rules()
            self._check_name(new.name)
            if ADMIN not in new.scopes and not self._is_administered(rules):
                message = (
                    "with this key nobody could use the admin API any more: set"
                    " router.admin_token, or make a key with the scope 'admin' first"
                    " (`llama-router keys add NAME --scope inference --scope admin`)"
                )
                raise ControlError(409, "no_admin_left", message)
            secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
            record = KeyRecord(
                id=secrets.token_hex(_ID_BYTES),
                digest=hashlib.sha256(secret.encode()).hexdigest(),
                created_s=round(time.time(), 3),
                **msgspec.structs.asdict(new),
            )
            await self._write(self._file.add, record)
            return self._stored_info(record), secret

    def _check_name(self, name: str) -> None:
        if any(rule.name == name for rule in config_rules(self._settings)):
            message = f"there is a key '{name}' already, in the config file; take another name"
        elif any(one.name == name for one in self._stored):
            message = f"there is a key '{name}' already"
        else:
            return
        raise ControlError(409, "key_exists", message)

    async def _revoke(self, name: str) -> KeyInfo:
        async with self._changing:
            found = [one for one in self._stored if one.id == name]
            found = found or [one for one in self._stored if one.name == name]
            if not found:
                if any(name in (info.id, info.name) for info in await self.keys()):
                    message = f"the key '{name}' stands in the config file: take it out there"
                    raise ControlError(409, "key_in_config", message)
                raise ControlError(404, "not_found", f"there is no key '{name}'")
            info = self._stored_info(found[0])
            self._check_may_go(found[0])
            await self._write(self._file.revoke, found[0].id)
            return info

    def _stored_info(self, record: KeyRecord) -> KeyInfo:
        rule = _stored_rule(record)
        if record.id in self._eclipsed:
            rule = msgspec.structs.replace(rule, scopes=())
        return _info(rule, record.id, record.created_s, record.last_used_s, "store")

    def _scopes(self, rule: ApiKey) -> tuple[str, ...]:
        if rule.scopes is not None:
            return rule.scopes
        return (INFERENCE,) if self._settings.admin_token else (INFERENCE, ADMIN)

    def _is_administered(self, rules: Iterable[ApiKey]) -> bool:
        """Tell whether somebody can use the admin API where these keys are asked for."""
        opened = {scope for rule in rules for scope in self._scopes(rule)}
        return ADMIN in opened or bool(self._settings.admin_token)

    def _check_may_go(self, record: KeyRecord) -> None:
        if record.id in self._eclipsed:
            return
        settings = self._settings
        others = [_stored_rule(one) for one in self._in_force() if one.id != record.id]
        rest = [*config_rules(settings), *others]
        is_open = settings.allow_public_without_keys or is_loopback(settings.host)
        if not rest and not is_open:
            message = (
                f"'{record.name}' is the last key, and others can reach {settings.host}: whoever"
                " does could use the router; make another key first"
            )
            raise ControlError(409, "last_key", message)
        if rest and not self._is_administered(rest):
            message = (
                f"without '{record.name}' nobody could use the admin API any more: revoke the other"
                " keys first, or make another one with the scope 'admin'"
            )
            raise ControlError(409, "no_admin_left", message)

    async def _write(self, change: Callable[[_T], None], argument: _T) -> None:
        try:
            await asyncio.to_thread(change, argument)
        except KeyNameTakenError as error:
            raise ControlError(409, "key_exists", str(error)) from None
        except KeyFileBusyError as error:
            raise ControlError(409, "busy", str(error)) from None
        except KeyFileError as error:
            raise ControlError(500, "internal_error", str(error)) from None
        self._take_stock()
        self._apply()

    async def _watch(self, used: UsedKeys) -> None:
        while True:
            await asyncio.sleep(USE_INTERVAL_S)
            await self.note_used(used.take_used_keys())

    async def note_used(self, names: Iterable[str]) -> None:
        """Remember that the keys of these names were used within the last minute."""
        now_s, used = float(int(time.time())), set(names)
        self._used_s |= dict.fromkeys(used, now_s)
        stored = {one.id: now_s for one in self._in_force() if one.name in used}
        if stored:
            try:
                await asyncio.to_thread(self._file.used, stored)
            except KeyFileError:
                # A time that is not kept is nobody's harm; what matters is said by others.
                return
            before = self._rules
            self._take_stock()
            if self._rules != before:
                # Somebody else has made keys, or revoked some.
                self._apply()


def config_rules(settings: RouterSettings) -> tuple[ApiKey, ...]:
    """Return the rules of the keys in the config."""
    return tuple(map(rule_of, settings.api_keys))


def _stored_rule(record: KeyRecord) -> ApiKey:
    return ApiKey(
        digest=bytes.fromhex(record.digest),
        name=record.name,
        priority=record.priority,
        batch=record.batch,
        scopes=record.scopes,
        models=record.models,
        requests_per_minute=record.requests_per_minute,
        max_in_flight=record.max_in_flight,
    )


def _eclipsed(settings: RouterSettings, stored: Sequence[KeyRecord]) -> list[KeyRecord]:
    """Return the stored keys that are out of force beside those of the config."""
    rules = config_rules(settings)
    names = {rule.name for rule in rules}
    digests = {rule.digest.hex() for rule in rules}
    return [one for one in stored if one.name in names or one.digest.lower() in digests]


def _doubts(settings: RouterSettings, stored: Sequence[KeyRecord]) -> list[str]:
    return [
        f"router.api_keys has the name or the secret of the key '{one.name}' that was made by"
        f" `llama-router keys`, which opens nothing beside it: `llama-router keys revoke {one.id}`"
        for one in _eclipsed(settings, stored)
    ]


def _info(
    rule: ApiKey, key_id: str, created_s: float | None, last_used_s: float | None, source: str
) -> KeyInfo:
    return KeyInfo(
        id=key_id,
        name=rule.name,
        scopes=rule.scopes or (),
        models=rule.models,
        requests_per_minute=rule.requests_per_minute,
        max_in_flight=rule.max_in_flight,
        priority=rule.priority,
        batch=rule.batch,
        created_s=created_s,
        last_used_s=last_used_s,
        source=source,
    )
