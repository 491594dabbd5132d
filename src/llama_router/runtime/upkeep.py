"""What keeps a router up to date while it serves: config, models on disk, downloads, peers."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_router.config.schema import Config
from llama_router.runtime.applying import Applier, Follower, unknown_names
from llama_router.runtime.bridge_config import ConfigBridge
from llama_router.runtime.changes import Changes
from llama_router.runtime.config_file import ConfigSource, Reading
from llama_router.runtime.desk import Desk
from llama_router.runtime.hub_service import HubService
from llama_router.runtime.memory import Memory
from llama_router.runtime.peers import Peers
from llama_router.runtime.roster import Roster, build_roster
from llama_router.runtime.silent_folders import SilentFolders
from llama_router.runtime.stock import INDEX_FILE_NAME, Scan, Stock
from llama_router.runtime.triggers import Triggers

if TYPE_CHECKING:
    from llama_router.control.thread import Facades
    from llama_router.runtime.keys import Keys


class Upkeep:
    """Made before anything is served. ``take_stock``, then ``open``, then ``start``; ``close``.

    ``source`` is where the config is from, ``reading`` what it said. Without ``has_caches`` models
    are looked for in the config's own folders only.
    """

    def __init__(
        self,
        *,
        source: ConfigSource,
        reading: Reading,
        desk: Desk,
        keys: "Keys",
        state_dir: Path,
        env: Mapping[str, str],
        home: Path,
        has_caches: bool,
    ) -> None:
        self._source = source
        self._reading = reading
        self._desk = desk
        self._keys = keys
        self._state_dir = state_dir
        self._env = env
        self._home = home
        self._silent = SilentFolders()
        self._stock = self._stock_of(has_caches=has_caches)
        self._finds = Scan()
        self._unknown: tuple[str, ...] = ()
        self._triggers: Triggers | None = None
        self._changes: Changes | None = None
        self._memory: Memory | None = None
        self.peers = Peers(request_ids=desk.request_ids, tell_started=desk.tell_started)
        self.hub = HubService(
            lambda: self.changes.config.hub,
            state_dir=state_dir,
            env=env,
            home=home,
            publish=desk.feed.publish,
            rescan=self._rescan,
            budgets=lambda: {} if self._memory is None else self._memory.budgets,
        )
        self._configuration = ConfigBridge(desk, self.hub)

    @property
    def changes(self) -> Changes:
        """The way to another config; once it is open."""
        if self._changes is None:
            raise AssertionError("nothing can be changed before there is anything")
        return self._changes

    def config_problem(self) -> str:
        """Say why the config's file is not what holds; empty when it is. For any thread."""
        return "" if self._changes is None else self._changes.stale.partition("\n")[0]

    @property
    def facades(self) -> "Facades":
        """What the control plane is given of all this."""
        configuration = self._configuration
        return {
            "configuration": configuration,
            "settings": configuration,
            "profiles": configuration,
            "keys": self._keys,
            "downloads": self.hub.bridge,
        }

    async def take_stock(self, config: Config) -> Roster:
        """Look for models for the first time, while nobody is served yet."""
        self._finds = await self._stock.take(config, is_urgent=True)
        finds = self._finds
        roster = await asyncio.to_thread(build_roster, config, finds.models, None, finds.silent)
        roster.silent_folders = lambda: self._silent.folders
        self._unknown = await asyncio.to_thread(unknown_names, config, roster)
        return roster

    def open(self, memory: Memory, roster: Roster, followers: Sequence[Follower]) -> None:
        """Allow changes, now that there is what follows them: ``followers`` among others."""
        applier = Applier(self._desk, memory)
        applier.tell_unknown(self._unknown)
        self._memory = memory
        self._changes = self._configuration.changes = changes = Changes(
            source=self._source,
            reading=self._reading,
            finds=self._finds,
            stock=self._stock,
            folders=self._stock_of(has_caches=False),
            applier=applier,
            roster=roster,
            publish=self._desk.feed.publish,
            reread=self._keys.reread,
        )
        self._triggers = Triggers(changes, self._stock)
        applier.followers += [*followers, self.peers.follow, self.hub.follow, self._triggers.follow]

    async def _rescan(self) -> object:
        return await self.changes.rescan()

    async def start(self) -> None:
        """Begin to watch and to download, now that requests are served."""
        if self._triggers is not None:
            self._triggers.follow(self.changes.config)
        await self.hub.start()

    async def close(self) -> None:
        """Change nothing any more. Idempotent."""
        if self._triggers is not None:
            self._triggers.close()
        await self.hub.close()
        if self._changes is not None:
            await self._changes.close()
        self._stock.close()
        await self.peers.close()

    def _stock_of(self, *, has_caches: bool) -> Stock:
        return Stock(
            env=self._env,
            home=self._home,
            index=self._state_dir / INDEX_FILE_NAME,
            has_caches=has_caches,
            silent=self._silent,
        )
