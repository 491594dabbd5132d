"""A model from the hub, whole: all its files, then the snapshot that names them."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from llama_router.hub.addresses import Addresses
from llama_router.hub.cached import find_cached
from llama_router.hub.choice import Contents, RepoFile, Variant, choose
from llama_router.hub.errors import HubError
from llama_router.hub.fetch import Fetch
from llama_router.hub.gate import Gate
from llama_router.hub.layout import RepoFolder, publish_lock
from llama_router.hub.listing import contents, file_url
from llama_router.hub.locks import locked
from llama_router.hub.names import GGUF_SUFFIX, Reference
from llama_router.hub.part import disk_error, part_bytes
from llama_router.hub.progress import Progress, Pulled, in_words
from llama_router.hub.protocol import Settings
from llama_router.hub.session import HubSession
from llama_router.hub.threads import in_thread
from llama_router.hub.throttle import Throttle

# What a disk keeps for everything else.
SPACE_LEFT_BYTES = 256 * 1024 * 1024
# Speeds are those of about the last so many seconds.
_SPEED_OVER_S = 5.0


class Hub:
    """A hub and a cache. All downloads of a process share the cap, the disk and the places.

    They may be ``like`` those of another one. ``needs`` is what the downloads under way still want
    of the disk.
    """

    def __init__(
        self,
        session: HubSession,
        cache: Path,
        *,
        max_parallel_files: int = 4,
        bandwidth_bytes_per_s: int = 0,
        is_offline: bool = False,
        like: "Hub | None" = None,
    ) -> None:
        self.session = session
        self.cache = cache
        self.is_offline = is_offline
        self.gate: Gate = Gate(max_parallel_files) if like is None else like.gate
        throttle = Throttle(bandwidth_bytes_per_s) if like is None else like.throttle
        self.throttle: Throttle = throttle
        self.needs: dict[Download, int] = {} if like is None else like.needs
        self.limit(max_parallel_files, bandwidth_bytes_per_s)

    def limit(self, max_parallel_files: int, bandwidth_bytes_per_s: int) -> None:
        """Hold all downloads to this from now on, those under way too."""
        self.gate.limit = max_parallel_files
        self.throttle.rate_bytes_per_s = bandwidth_bytes_per_s


@asynccontextmanager
async def open_hub(settings: Settings, like: Hub | None = None) -> AsyncIterator[Hub]:
    """Give the hub and the cache that the settings say, for as long as this is entered."""
    addresses = Addresses(settings.endpoint, settings.allowed_hosts)
    async with HubSession(addresses, settings.token, settings.patience) as session:
        yield Hub(
            session,
            Path(settings.cache),
            max_parallel_files=settings.max_parallel_files,
            bandwidth_bytes_per_s=settings.bandwidth_bytes_per_s,
            is_offline=settings.is_offline,
            like=like,
        )


class Download:
    """One model on its way. ``on_change`` is called often; it must be quick."""

    def __init__(
        self, hub: Hub, reference: Reference, on_change: Callable[[], object] = lambda: None
    ) -> None:
        self._hub = hub
        self._reference = reference
        self._on_change = on_change
        self._folder = RepoFolder(hub.cache, reference.repo)
        self._have: dict[str, int] = {}
        self._variant: Variant | None = None
        self._note = ""
        self._seen: list[tuple[float, int]] = []

    @property
    def progress(self) -> Progress:
        """How far it is."""
        variant = self._variant
        if variant is None:
            return Progress(note=self._note)
        wanted = _by_blob(variant.all_files)
        done_bytes = sum(self._have.values())
        return Progress(
            model=variant.id,
            done_bytes=done_bytes,
            total_bytes=sum(file.size_bytes for file in wanted.values()),
            speed_bytes_per_s=self._speed(done_bytes),
            file_count=len(wanted),
            files_done_count=sum(
                self._have.get(blob) == file.size_bytes for blob, file in wanted.items()
            ),
            note=self._note,
            blobs=tuple(wanted),
        )

    async def run(self) -> Pulled:
        """Have the model in the cache. Raises HubError; what has come is kept then."""
        hub, reference = self._hub, self._reference
        if hub.is_offline:
            cached = await asyncio.to_thread(find_cached, hub.cache, reference)
            if cached is None:
                raise HubError("offline", f"{reference} is not in the cache, and this is offline")
            return cached
        found, files = await contents(hub.session, reference.repo, self.note)
        self._variant = variant = choose(found, reference)
        wanted = _by_blob(variant.all_files)
        try:
            await self._reserve(wanted)
            await self._fetch_all(found.commit, wanted)
        finally:
            hub.needs.pop(self, None)
        lock = publish_lock(self._folder)
        try:
            # Others may publish the same, or delete it.
            async with locked(lock, lambda: None):
                return await in_thread(self._publish, found, files, variant)
        except OSError as error:
            raise disk_error(lock, error) from None

    def have(self, file: RepoFile, have_bytes: int) -> None:
        """See Report."""
        self._have[file.blob] = have_bytes
        if self in self._hub.needs and self._variant is not None:
            total_bytes = sum(one.size_bytes for one in _by_blob(self._variant.all_files).values())
            self._hub.needs[self] = max(0, total_bytes - sum(self._have.values()))
        self._on_change()

    def note(self, text: str) -> None:
        """See Report."""
        self._note = text
        self._on_change()

    async def _reserve(self, wanted: Mapping[str, RepoFile]) -> None:
        """See that the disk has room for it, and for what others still want of it."""
        have = await asyncio.to_thread(_present, self._folder, wanted.values())
        self._have.update(have)
        self._on_change()
        needed_bytes = sum(file.size_bytes for file in wanted.values()) - sum(have.values())
        if needed_bytes == 0:
            return
        try:
            free_bytes = await asyncio.to_thread(_free_bytes, self._hub.cache)
        except OSError as error:
            raise disk_error(self._hub.cache / "blobs", error) from None
        others_bytes = sum(self._hub.needs.values())
        left_bytes = free_bytes - others_bytes - SPACE_LEFT_BYTES
        if needed_bytes > left_bytes:
            others = f", of which other downloads need {in_words(others_bytes)}" * (
                others_bytes > 0
            )
            raise HubError(
                "disk_full",
                f"{self._reference} needs {in_words(needed_bytes)} more; the disk of"
                f" {self._hub.cache} has {in_words(free_bytes)} free"
                f"{others if others_bytes else ''}, and {in_words(SPACE_LEFT_BYTES)} stay free",
            )
        self._hub.needs[self] = needed_bytes

    async def _fetch_all(self, commit: str, wanted: Mapping[str, RepoFile]) -> None:
        hub = self._hub
        fetches = [
            Fetch(
                hub.session,
                self._folder,
                file,
                file_url(hub.session, self._reference.repo, commit, file.path),
                throttle=hub.throttle,
                gate=hub.gate,
                report=self,
            )
            for file in wanted.values()
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for fetch in fetches:
                    group.create_task(fetch.run(), name=f"fetch {self._reference}")
        except BaseExceptionGroup as errors:
            # The first says why; the others were cancelled for its sake.
            raise errors.exceptions[0] from None

    def _publish(self, found: Contents, files: Mapping[str, RepoFile], variant: Variant) -> Pulled:
        """Make the snapshot and check it out. In a thread. Raises HubError, OSError."""
        folder = self._folder
        if not all(folder.has(one.blob, one.size_bytes) for one in variant.all_files):
            raise HubError("disk_failed", f"{self._reference} was deleted meanwhile; begin again")
        try:
            folder.prepare()
            paths = [folder.link(found.commit, one.path, one.blob) for one in variant.all_files]
            if folder.main_commit() != found.commit:
                # What an earlier commit had and this one still has stays where it is looked for.
                for file in files.values():
                    if file.path.lower().endswith(GGUF_SUFFIX) and folder.has(
                        file.blob, file.size_bytes
                    ):
                        folder.link(found.commit, file.path, file.blob)
                folder.set_main(found.commit)
        except OSError as error:
            raise disk_error(folder.snapshots, error) from None
        size_bytes = sum(file.size_bytes for file in variant.all_files)
        parts = tuple(map(str, paths[: len(variant.files)]))
        return Pulled(variant.id, parts, size_bytes, found.commit)

    def _speed(self, done_bytes: int) -> int:
        now_s = time.monotonic()
        if not self._seen or now_s - self._seen[-1][0] > _SPEED_OVER_S / 20:
            self._seen.append((now_s, done_bytes))
        while len(self._seen) > 1 and now_s - self._seen[0][0] > _SPEED_OVER_S:
            self._seen.pop(0)
        since_s, since_bytes = self._seen[0]
        return max(0, int((done_bytes - since_bytes) / max(now_s - since_s, 0.05)))


def _by_blob(files: Iterable[RepoFile]) -> dict[str, RepoFile]:
    return {file.blob: file for file in files}


def _present(folder: RepoFolder, files: Iterable[RepoFile]) -> dict[str, int]:
    return {
        file.blob: file.size_bytes
        if folder.has(file.blob, file.size_bytes)
        else min(file.size_bytes, part_bytes(folder, file.blob))
        for file in files
    }


def _free_bytes(folder: Path) -> int:
    """Return what the disk has free where this folder is or will be. Raises OSError."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
