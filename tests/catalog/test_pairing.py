"""What belongs together, what is the same file twice, and what is no model at all."""

import json
import os
from pathlib import Path

import pytest

from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.gguf_writer import Tensor, Value, write_gguf
from llama_router.catalog.model import CatalogModel
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_projector import write_projector

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(path: Path, split: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_model(path, "one two three", name=path.stem, split=split)[0]


def other(path: Path, metadata: dict[str, Value], tensors: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = [Tensor(f"blk.{number}.x", (32, 4)) for number in range(tensors)]
    write_gguf(path, {"general.architecture": "llama"} | metadata, weights)
    return path


def found(home: Path, *folders: Path, hub: Path | None = None) -> dict[str, CatalogModel]:
    env = {"HF_HUB_CACHE": str(hub)} if hub else {}
    return {one.id: one for one in discover(Sources(folders, env, home, "linux"))}


def snapshot(cache: Path, repo: str) -> Path:
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    return folder / "snapshots" / COMMIT


def test_adapters_vocabularies_and_the_like_are_no_models(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model(folder / "real.gguf")
    other(folder / "lora.gguf", {"general.type": "adapter", "adapter.type": "lora"})
    other(folder / "old-lora.gguf", {"adapter.type": "lora"})
    other(folder / "vocab.gguf", {}, tensors=0)
    other(folder / "steer.gguf", {"general.architecture": "controlvector"})
    other(folder / "matrix.gguf", {"general.type": "imatrix"})

    assert set(found(tmp_path, folder)) == {"real"}


def test_first_part_without_weights_is_a_part_all_the_same(tmp_path: Path) -> None:
    path = model(tmp_path / "m" / "sea.gguf", split=2)
    other(path, {"split.no": 0, "split.count": 2}, tensors=0)

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert not entry.invalid
    assert entry.metadata is not None
    assert entry.metadata.parameter_count > 0


def test_file_that_is_still_being_copied_is_incomplete(tmp_path: Path) -> None:
    path = model(tmp_path / "m" / "sea.gguf")
    os.truncate(path, path.stat().st_size - 1)
    part = model(tmp_path / "m" / "sky.gguf", split=2).with_name("sky-00002-of-00002.gguf")
    os.truncate(part, part.stat().st_size // 2)

    models = found(tmp_path, tmp_path / "m")

    assert models["sea"].invalid.startswith("incomplete: ")
    assert models["sky"].invalid.startswith("incomplete: sky-00002-of-00002.gguf: ")


@pytest.mark.parametrize(
    ("drafts", "best"),
    [
        (("eagle3-sea.gguf", "mtp-sea-Q8_0.gguf"), "mtp-sea-Q8_0.gguf"),
        (("mtp-sea-Q8_0.gguf", "mtp-sea-Q4_K_M.gguf"), "mtp-sea-Q4_K_M.gguf"),
        (("mtp-sea-Q8_0.gguf", "mtp-sea-Q5_0.gguf"), "mtp-sea-Q5_0.gguf"),
        (("dflash-sea.gguf", "dspark-sea.gguf"), "dspark-sea.gguf"),
    ],
)
def test_draft_beside_a_model_is_linked_to_it(
    tmp_path: Path, drafts: tuple[str, ...], best: str
) -> None:
    folder = tmp_path / "m"
    model(folder / "sea-Q4_K_M.gguf")
    for name in drafts:
        model(folder / name)
    model(folder / "below" / "sky.gguf")

    models = found(tmp_path, folder)

    assert {name: one.draft for name, one in models.items()} == {
        "sea-Q4_K_M": folder / best,
        "sky": None,
    }


def test_draft_named_after_one_model_is_not_anothers(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model(folder / "sea-Q8_0.gguf")
    model(folder / "sky-Q8_0.gguf")
    model(folder / "mtp-sea-Q8_0.gguf")

    models = found(tmp_path, folder)

    assert models["sea-Q8_0"].draft == folder / "mtp-sea-Q8_0.gguf"
    assert models["sky-Q8_0"].draft is None


def test_draft_of_a_repository_is_linked_to_its_models(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub", "org/sea")
    model(folder / "sea-Q4_K_M.gguf")
    model(folder / "Q8_0" / "sea-Q8_0.gguf")
    model(folder / "mtp-sea-Q8_0.gguf")

    models = found(tmp_path, hub=tmp_path / "hub")

    assert {one.draft for one in models.values()} == {folder / "mtp-sea-Q8_0.gguf"}
    assert set(models) == {"org/sea:Q4_K_M", "org/sea:Q8_0"}


def test_flat_cache_pairs_by_repository_where_no_manifest_says_it(tmp_path: Path) -> None:
    cache = tmp_path / ".cache" / "llama.cpp"
    model(cache / "org_sea_sea-Q4_0.gguf")
    model(cache / "org_sky_sky-Q4_0.gguf")
    for name in ("org_sea_mmproj-F32.gguf", "org_sea_mmproj-BF16.gguf", "mmproj-F16.gguf"):
        write_projector(cache / name)
    model(cache / "org_sea_mtp-sea.gguf")

    models = found(tmp_path)

    assert models["org_sea_sea-Q4_0"].mmproj == cache / "org_sea_mmproj-BF16.gguf"
    assert models["org_sea_sea-Q4_0"].draft == cache / "org_sea_mtp-sea.gguf"
    assert models["org_sky_sky-Q4_0"].mmproj is None


def test_manifest_says_better_which_projector_is_meant(tmp_path: Path) -> None:
    cache = tmp_path / ".cache" / "llama.cpp"
    model(cache / "org_sea_sea-Q4_0.gguf")
    for name in ("org_sea_mmproj-F32.gguf", "org_sea_mmproj-BF16.gguf"):
        write_projector(cache / name)
    manifest = {"ggufFile": {"rfilename": "sea-Q4_0.gguf"}}
    manifest["mmprojFile"] = {"rfilename": "mmproj-F32.gguf"}
    (cache / "manifest=org=sea=Q4_0.json").write_text(json.dumps(manifest))

    assert found(tmp_path)["org/sea:Q4_0"].mmproj == cache / "org_sea_mmproj-F32.gguf"


def test_projector_adds_what_the_model_can_see(tmp_path: Path) -> None:
    model(tmp_path / "m" / "sea.gguf")
    write_projector(tmp_path / "m" / "mmproj-F16.gguf")

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert entry.metadata is not None
    assert entry.metadata.modalities == ("text", "vision")


def test_one_file_under_several_names_is_one_model_with_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    path = model(folder / "sea.gguf")
    os.link(path, folder / "the-same.gguf")
    (folder / "again.gguf").symlink_to(path)
    (folder / "below").mkdir()
    os.link(path, folder / "below" / "sea.gguf")

    models = found(tmp_path, folder, folder)

    (entry,) = models.values()
    assert {entry.id, *entry.names} >= {"sea", "again", "the-same", "the-same.gguf"}


def test_link_in_a_folder_to_a_file_of_the_cache_leads_to_the_caches_model(tmp_path: Path) -> None:
    blob = model(tmp_path / "hub" / "models--org--sea" / "blobs" / "x.gguf")
    place = snapshot(tmp_path / "hub", "org/sea") / "sea-Q4_0.gguf"
    place.symlink_to(os.path.relpath(blob, place.parent))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.gguf").symlink_to(place)

    (entry,) = found(tmp_path, tmp_path / "m", hub=tmp_path / "hub").values()

    assert entry.id == "org/sea:Q4_0"
    assert "mine" in entry.names
    assert entry.real_path == blob.resolve()
    assert not entry.invalid


def test_link_out_of_a_folder_does_not_hide_the_file_itself(tmp_path: Path) -> None:
    path = model(tmp_path / "b" / "sea.gguf")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "aaa.gguf").symlink_to(path)

    (entry,) = found(tmp_path, tmp_path / "a", tmp_path / "b").values()

    assert (entry.id, entry.invalid, entry.path) == ("sea", "", path)


def test_copies_are_models_of_their_own(tmp_path: Path) -> None:
    content = model(tmp_path / "m" / "sea.gguf").read_bytes()
    (tmp_path / "m" / "copy.gguf").write_bytes(content)

    assert set(found(tmp_path, tmp_path / "m")) == {"sea", "copy"}


def test_folder_behind_a_link_says_where_its_files_really_are(tmp_path: Path) -> None:
    path = model(tmp_path / "real" / "sea.gguf")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    (behind,) = found(tmp_path, tmp_path / "link").values()
    (plain,) = found(tmp_path, tmp_path / "real").values()

    assert (behind.path, behind.real_path) == (tmp_path / "link" / "sea.gguf", path.resolve())
    assert plain.real_path is None or plain.real_path == path.resolve()


def test_snapshot_that_leads_out_of_its_repository_is_left_out(tmp_path: Path) -> None:
    model(tmp_path / "elsewhere" / "secret-Q4_0.gguf")
    folder = snapshot(tmp_path / "hub", "org/sea")
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")

    assert found(tmp_path, hub=tmp_path / "hub") == {}


def test_folder_name_that_is_no_text_gives_a_printable_id(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff"))
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    model(root / "a" / "sea.gguf")
    model(root / "b" / "sea.gguf")

    models = found(tmp_path, root, root / "a", tmp_path)

    for name in models:
        name.encode()
    assert len(models) == 2
