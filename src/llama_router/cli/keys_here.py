"""The API keys of a router that does not run, in the file that it will read at its start."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from llama_router.config.schema import RouterSettings
from llama_router.control.facade import ControlError
from llama_router.runtime.keys import Keys
from llama_router.store import STORE_FILE_NAME
from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyFileError
from llama_router.store.lock import FileLock, LockedError

_T = TypeVar("_T")


class HereError(Exception):
    """The keys cannot be read or changed here; the text says why and what to do."""


class KeysHere:
    """The keys in a router's state folder and its config. Everything raises HereError.

    The checks are the running router's.
    """

    def __init__(self, state_dir: Path, settings: RouterSettings) -> None:
        self.path = state_dir / KEYS_FILE_NAME
        self._settings = settings
        self._lock_path = state_dir / f"{STORE_FILE_NAME}.lock"

    def all(self) -> dict[str, Any]:
        """Return all keys, as the API lists them."""
        found = self._with(lambda keys: keys.keys())
        return {"keys": msgspec.to_builtins(found)}

    def add(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Make a key, said as the API wants it; return it with its secret, as the API does."""
        # With it comes the API's framework, which listing and revoking do without.
        from llama_router.control.keys import NewKeyOrder

        try:
            new = NewKeyOrder.model_validate(content).wanted()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise HereError(f"{where}: {first['msg']}") from None
        self._prepare()
        info, secret = self._with(lambda keys: keys.add_key(new))
        return {**msgspec.to_builtins(info), "key": secret}

    def revoke(self, name: str) -> None:
        """Revoke the key of that id or name."""
        self._prepare()
        self._with(lambda keys: keys.revoke_key(name))

    def _prepare(self) -> None:
        """Make sure that there is a folder, and no router that would not notice the change."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Held for no longer than a look: a router that starts just now must get it.
            FileLock(self._lock_path).release()
        except LockedError:
            raise HereError(
                f"a router runs by the keys in {self.path.parent}, but does not answer there: say"
                " with --url where it is"
            ) from None
        except OSError as error:
            raise HereError(
                f"the keys cannot be kept in {self.path.parent}: {error.strerror or error}"
            ) from None

    def _with(self, ask: Callable[[Keys], Awaitable[_T]]) -> _T:
        async def asked() -> _T:
            return await ask(Keys(KeyFile(self.path), self._settings, apply=_nobody))

        try:
            return asyncio.run(asked())
        except (KeyFileError, ControlError) as error:
            raise HereError(str(error)) from None


def _nobody() -> None:
    """Let nobody follow: there is no router yet."""
