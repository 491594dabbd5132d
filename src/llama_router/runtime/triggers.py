"""What makes a router look again without being asked: its config file or its models changing."""

import asyncio
import contextlib
from pathlib import Path

from llama_router.config.schema import Config
from llama_router.proxy.errors import ShuttingDownError
from llama_router.runtime.changes import Changes
from llama_router.runtime.config_file import ReadError
from llama_router.runtime.stock import Stock
from llama_router.runtime.watching import Watch, watch_file, watch_folders


class Triggers:
    """Watches what the config says is to be watched. ``follow`` it once it holds."""

    def __init__(self, changes: Changes, stock: Stock) -> None:
        self._changes = changes
        self._stock = stock
        self._config: Config | None = None
        self._of_file: Watch | None = None
        self._of_folders: Watch | None = None
        # Folders, and those that are left out.
        self._watched: tuple[tuple[Path, ...], tuple[Path, ...]] = ((), ())
        self._work: set[asyncio.Task[None]] = set()
        self._is_rescan_due = False
        self._loop = asyncio.get_running_loop()
        stock.silent.on_change = self._on_silence

    def follow(self, config: Config) -> None:
        """Watch by this config from now on."""
        self._config = config
        path = self._changes.source.path
        if config.router.watch_config and path is not None:
            if self._of_file is None:
                self._of_file = watch_file(path, self._on_file)
        elif self._of_file is not None:
            self._of_file.close()
            self._of_file = None
        folders = self._stock.folders(config) if config.router.watch_models else ()
        silent = self._stock.silent.folders
        if (folders, silent) == self._watched:
            return
        if self._of_folders is not None:
            self._of_folders.close()
            self._of_folders = None
        self._watched = folders, silent
        if folders:
            self._of_folders = watch_folders(folders, self._on_folders, left_out=silent)

    def close(self) -> None:
        """Watch nothing any more."""
        self._config = None
        for watch in (self._of_file, self._of_folders):
            if watch is not None:
                watch.close()
        for task in self._work:
            task.cancel()

    def _on_file(self) -> None:
        self._start(self._reload(), "reload a changed file")

    def _on_folders(self) -> None:
        if not self._is_rescan_due:
            # Whatever comes up while one waits for its turn is seen by that one.
            self._is_rescan_due = True
            self._start(self._rescan(), "rescan changed folders")

    def _on_silence(self, answers: bool) -> None:  # noqa: FBT001 - a call of one kind
        """Take note, on any thread, of a folder that does not answer, or does so again."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._watch_others, answers)

    def _watch_others(self, answers: bool) -> None:  # noqa: FBT001 - as above
        if self._config is not None:
            self.follow(self._config)
            if answers:
                self._on_folders()

    async def _reload(self) -> None:
        # The router itself writes it when it is edited over the API.
        if not await self._changes.is_read_already():
            self._changes.reload_soon(f"{self._changes.source.path} has changed")

    async def _rescan(self) -> None:
        # The scan itself has logged it.
        with contextlib.suppress(ReadError, ShuttingDownError):
            await self._changes.rescan(self._begun)

    def _begun(self) -> None:
        self._is_rescan_due = False

    def _start(self, work: "asyncio._CoroutineLike[None]", name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
