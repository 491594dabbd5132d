"""The hub's part of a router: downloads, the API's way to them, deleting what was downloaded."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from llama_router.catalog import hub_cache
from llama_router.config.hub_settings import HubSettings
from llama_router.config.schema import Config
from llama_router.control.facades import DeletedInfo
from llama_router.hub.environment import source
from llama_router.hub.errors import HubError
from llama_router.hub.protocol import Settings
from llama_router.runtime.bridge_downloads import DownloadsBridge, control_error
from llama_router.runtime.downloads import Downloads
from llama_router.runtime.feed import FeedEvent
from llama_router.runtime.fitness import HubFitness


def hub_settings(settings: HubSettings, env: Mapping[str, str], home: Path) -> Settings:
    """Return what a download needs to know: the config's word, or else the environment's.

    Reads the file of huggingface_hub's token: for a thread.
    """
    found = source(
        env,
        home,
        endpoint=settings.endpoint,
        token=settings.token,
        is_offline=settings.offline,
    )
    return Settings(
        endpoint=found.endpoint,
        token=found.token,
        cache=str(hub_cache.directory(env, home)),
        is_offline=found.is_offline,
        max_parallel_files=settings.max_parallel_files,
        bandwidth_bytes_per_s=settings.bandwidth,
        allowed_hosts=settings.allowed_hosts,
    )


class HubService:
    """Made on the data plane's loop. ``bridge`` is for the control plane, from the beginning on.

    ``settings`` are asked for when they are needed, and with ``follow``. ``publish`` gets events;
    ``rescan`` is awaited when a model has come or gone; ``budgets`` is what engines may take.
    """

    def __init__(
        self,
        settings: Callable[[], HubSettings],
        *,
        state_dir: Path,
        env: Mapping[str, str],
        home: Path,
        publish: Callable[[FeedEvent], object],
        rescan: Callable[[], Awaitable[object]],
        budgets: Callable[[], Mapping[str, int]],
    ) -> None:
        self._rescan = rescan
        cache = hub_cache.directory(env, home)
        self.downloads = Downloads(
            lambda: hub_settings(settings(), env, home),
            state_dir=state_dir,
            env=env,
            publish=publish,
            on_complete=self._on_complete,
        )
        self.bridge = DownloadsBridge(lambda: cache)
        self.bridge.fitness = HubFitness(budgets, self.downloads.header)
        self._cache = cache

    async def start(self) -> None:
        """Go on with what an earlier router was at, and open the API. Once models are served."""
        self.bridge.downloads_here = self.downloads
        await self.downloads.start()

    async def close(self) -> None:
        """End it; what has come is kept. Idempotent."""
        self.bridge.downloads_here = None
        await self.downloads.close()

    def follow(self, _config: Config) -> None:
        """Go by another config: its settings are those that are given by now."""
        self.downloads.follow()

    def holds(self, path: Path) -> bool:
        """Whether a file is of the hub's cache, so that it can be deleted here."""
        return path.is_relative_to(self._cache)

    async def delete(self, model: str, paths: tuple[Path, ...]) -> DeletedInfo:
        """Delete a model of the cache whose files these are, and look around. Raises ControlError.

        Its engine must not run. What other models or snapshots use stays.
        """
        try:
            removed = await self.downloads.remove(paths)
        except HubError as error:
            raise control_error(error) from None
        await self._rescan()
        return DeletedInfo(model=model, files=removed.files, freed_bytes=removed.freed_bytes)

    async def _on_complete(self, _model: str) -> None:
        await self._rescan()
