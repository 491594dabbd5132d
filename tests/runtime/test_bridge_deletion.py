import os
from pathlib import Path

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.control.facade import ControlError
from llama_router.control.facades import DeletedInfo
from llama_router.runtime.bridge_deletion import delete_files

pytestmark = pytest.mark.asyncio


class Cache:
    """The hub's cache: everything below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[Path, ...]] = []

    def holds(self, path: Path) -> bool:
        return path.is_relative_to(self.folder)

    async def delete(self, model: str, paths: tuple[Path, ...]) -> DeletedInfo:
        self.asked.append(paths)
        return DeletedInfo(model=model, files=("a",), freed_bytes=1)


class Disk:
    """Counts how often somebody looks around."""

    def __init__(self) -> None:
        self.count = 0

    async def rescan(self) -> None:
        self.count += 1


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def model(*paths: Path, source: ModelSource = ModelSource.MODELS_DIR) -> CatalogModel:
    parts = paths if len(paths) > 1 else ()
    return CatalogModel(id="m", path=paths[0] if paths else None, source=source, parts=parts)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


async def test_all_parts_of_a_model_go_and_nothing_else(tmp_path: Path, cache: Cache) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in (*parts, tmp_path / "other.gguf", tmp_path / "mmproj.gguf"):
        path.write_bytes(b"12345")
    disk = Disk()
    deleted = await delete_files(model(*parts), cache, disk.rescan)
    assert deleted.freed_bytes == 10
    assert deleted.files == tuple(map(str, parts))
    assert names_in(tmp_path) == ["mmproj.gguf", "other.gguf"]
    assert (disk.count, cache.asked) == (1, [])
    again = await delete_files(model(*parts), cache, disk.rescan)
    assert again.freed_bytes == 0


async def test_a_link_goes_and_not_what_it_leads_to(tmp_path: Path, cache: Cache) -> None:
    target, link = tmp_path / "precious.bin", tmp_path / "m.gguf"
    target.write_bytes(b"12345")
    link.symlink_to(target)
    deleted = await delete_files(model(link), cache, Disk().rescan)
    assert deleted.freed_bytes == 0
    assert names_in(tmp_path) == ["precious.bin"]


async def test_what_is_in_the_hubs_cache_is_the_caches_affair(cache: Cache) -> None:
    disk, path = Disk(), cache.folder / "m.gguf"
    deleted = await delete_files(model(path, source=ModelSource.HUB_CACHE), cache, disk.rescan)
    assert (deleted.freed_bytes, cache.asked, disk.count) == (1, [(path,)], 0)


async def test_what_is_no_models_file_or_the_configs_stays(tmp_path: Path, cache: Cache) -> None:
    text, folder = tmp_path / "notes.txt", tmp_path / "folder.gguf"
    text.write_bytes(b"x")
    os.mkdir(folder)  # noqa: PTH102 - as above
    for found in (
        model(text),
        model(folder),
        model(text, source=ModelSource.CONFIG),
        model(source=ModelSource.CONFIG),
    ):
        with pytest.raises(ControlError) as raised:
            await delete_files(found, cache, Disk().rescan)
        assert (raised.value.status, raised.value.code) == (409, "not_deletable")
    assert names_in(tmp_path) == ["folder.gguf", "notes.txt"]
