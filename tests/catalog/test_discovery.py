import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from llama_router.catalog.discovery import Sources, discover
from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.tiny import split_path, write_model
from llama_router.catalog.tiny_broken import Breakage, write_broken
from llama_router.catalog.tiny_projector import write_projector

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(path: Path, text: str = "one two three", split: int = 1) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_model(path, text, name=path.stem, split=split)


def projector(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_projector(path)


def found(
    home: Path, *models_dirs: Path, env: Mapping[str, str] | None = None, platform: str = "linux"
) -> dict[str, CatalogModel]:
    models = discover(Sources(models_dirs, env or {}, home, platform))
    assert [entry.id for entry in models] == sorted(entry.id for entry in models)
    return {entry.id: entry for entry in models}


def hub_repo(cache: Path, repo: str, files: Mapping[str, Path], ref: str = "main") -> Path:
    """Lay files out as huggingface_hub does: blobs, and links to them in the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / ref).write_text(COMMIT)
    for name, content in files.items():
        blob = folder / "blobs" / name.replace("/", "_")
        blob.write_bytes(content.read_bytes())
        link = folder / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


def test_nothing_anywhere_is_an_empty_list(tmp_path: Path) -> None:
    assert found(tmp_path, tmp_path / "missing") == {}


def test_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    model(tmp_path / "m" / "sea.gguf")
    model(tmp_path / "m" / "author" / "repo" / "sky-Q8_0.gguf")

    models = found(tmp_path, tmp_path / "m")

    assert set(models) == {"sea", "sky-Q8_0"}
    sky = models["sky-Q8_0"]
    assert sky.names == ("sky-Q8_0.gguf",)
    assert sky.source is ModelSource.MODELS_DIR
    assert sky.path == tmp_path / "m" / "author" / "repo" / "sky-Q8_0.gguf"
    assert sky.path is not None
    assert sky.size_bytes == sky.path.stat().st_size
    assert sky.modified_at_s == sky.path.stat().st_mtime
    assert not sky.invalid


def test_same_stem_gets_a_longer_id_the_second_time(tmp_path: Path) -> None:
    for place in ("a/x/sea.gguf", "a/y/sea.gguf", "b/x/sea.gguf"):
        model(tmp_path / place)
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "b/x/sea.gguf", tmp_path / "other" / "renamed.gguf")

    models = found(tmp_path, tmp_path / "a", tmp_path / "b", tmp_path / "b", tmp_path / "other")

    assert {key: entry.path for key, entry in models.items()} == {
        "sea": tmp_path / "a/x/sea.gguf",
        "y/sea": tmp_path / "a/y/sea.gguf",
        "x/sea": tmp_path / "b/x/sea.gguf",
    }


def test_split_files_are_one_model(tmp_path: Path) -> None:
    parts = model(tmp_path / "m" / "sea-F32.gguf", split=3)

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert entry.id == "sea-F32"
    assert entry.path == parts[0]
    assert entry.parts == tuple(parts)
    assert entry.size_bytes == sum(part.stat().st_size for part in parts)
    assert not entry.invalid


def test_missing_part_makes_a_model_incomplete(tmp_path: Path) -> None:
    parts = model(tmp_path / "m" / "sea.gguf", split=3)
    parts[0].unlink()
    parts[1].unlink()

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert entry.invalid == "incomplete: of 3 parts, missing: 1, 2"


def test_exchanged_parts_are_noticed(tmp_path: Path) -> None:
    parts = model(tmp_path / "m" / "sea.gguf", split=2)
    parts[1].write_bytes(parts[0].read_bytes())

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert "says it is part 1 of 2" in entry.invalid


def test_absurd_part_count_costs_nothing(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "m" / "sea.gguf")
    path.rename(split_path(path, 1, 99999))

    (entry,) = found(tmp_path, tmp_path / "m").values()

    assert entry.invalid.startswith("incomplete")


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (("mmproj-F32.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"), "mmproj-BF16.gguf"),
        (("mmproj-F32.gguf", "mmproj-model-f16.gguf"), "mmproj-model-f16.gguf"),
        (("mmproj-Q8_0.gguf", "mmproj-F32.gguf"), "mmproj-F32.gguf"),
        (("vision-tower.gguf",), "vision-tower.gguf"),
    ],
)
def test_best_projector_of_the_folder_serves_all_quantisations(
    tmp_path: Path, names: tuple[str, ...], best: str
) -> None:
    for quantisation in ("Q4_K_M", "Q8_0"):
        model(tmp_path / "m" / f"sea-{quantisation}.gguf")
    for name in names:
        projector(tmp_path / "m" / name)
    model(tmp_path / "m" / "below" / "sky.gguf")

    models = found(tmp_path, tmp_path / "m")

    assert {key: entry.mmproj for key, entry in models.items()} == {
        "sea-Q4_K_M": tmp_path / "m" / best,
        "sea-Q8_0": tmp_path / "m" / best,
        "sky": None,
    }


def test_projector_named_after_one_model_is_not_given_to_another(tmp_path: Path) -> None:
    model(tmp_path / "m" / "sea-2b-Q4_K_M.gguf")
    model(tmp_path / "m" / "sky-Q4_K_M.gguf")
    own = projector(tmp_path / "m" / "mmproj-sea-2b-F16.gguf")

    models = found(tmp_path, tmp_path / "m")

    assert models["sea-2b-Q4_K_M"].mmproj == own
    assert models["sky-Q4_K_M"].mmproj is None


def test_models_without_a_quantisation_in_their_names_are_told_apart(tmp_path: Path) -> None:
    model(tmp_path / "m" / "sea-story.gguf")
    model(tmp_path / "m" / "sea-shell.gguf")
    own = projector(tmp_path / "m" / "mmproj-sea-shell.gguf")

    models = found(tmp_path, tmp_path / "m")

    assert models["sea-shell"].mmproj == own
    assert models["sea-story"].mmproj is None


def test_broken_files_are_listed_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model(folder / "good.gguf")
    for how in Breakage:
        write_broken(folder / f"{how}.gguf", how)
    write_broken(folder / "mmproj-F16.gguf", Breakage.EMPTY)

    models = found(tmp_path, folder)

    assert set(models) == {"good", *Breakage}
    assert [key for key, entry in models.items() if not entry.invalid] == ["good"]
    assert models["truncated_data"].invalid.startswith("incomplete: ")
    assert models["good"].mmproj is None


def test_links_and_special_files_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (inside,) = model(folder / "sea.gguf")
    (outside,) = model(tmp_path / "elsewhere" / "secret.gguf")
    (folder / "escape.gguf").symlink_to(outside)
    (folder / "loop.gguf").symlink_to("loop.gguf")
    (folder / "round").symlink_to(folder)
    (folder / "away").symlink_to(outside.parent)
    (folder / "device.gguf").symlink_to(os.devnull)
    os.mkfifo(folder / "fifo.gguf")
    (folder / "folder.gguf").mkdir()

    models = found(tmp_path, folder)

    assert {key: bool(entry.invalid) for key, entry in models.items()} == {
        "sea": False,
        "escape": True,
        "loop": True,
        "device": True,
        "fifo": True,
    }
    assert models["sea"].path == inside
    assert models["escape"].invalid == "a link that leads out of the folder"


def test_name_that_is_no_utf8_still_gives_a_printable_id(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (path,) = model(folder / "sea.gguf")
    try:
        os.rename(os.fsencode(path), os.fsencode(folder) + b"/s\xffea.gguf")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 only")

    (entry,) = found(tmp_path, folder).values()

    assert entry.id == "s\N{REPLACEMENT CHARACTER}ea"
    assert not entry.invalid


def test_hub_models_have_llama_cpps_ids(tmp_path: Path) -> None:
    (content,) = model(tmp_path / "content.gguf")
    parts = model(tmp_path / "big-Q8_0.gguf", split=2)
    mmproj = projector(tmp_path / "mmproj.gguf")
    hub_repo(
        tmp_path / "hub",
        "org/sea-GGUF",
        {
            "sea-UD-Q4_K_XL.gguf": content,
            "sea-q4_k_m.gguf": content,
            "Q8_0/sea-Q8_0-00001-of-00002.gguf": parts[0],
            "Q8_0/sea-Q8_0-00002-of-00002.gguf": parts[1],
            "mmproj-F32.gguf": mmproj,
            "mmproj-Q8_0.gguf": mmproj,
            "mtp-sea-Q4_K_M.gguf": content,
            "README.md": content,
        },
    )

    models = found(tmp_path, env={"HF_HUB_CACHE": str(tmp_path / "hub")})

    snapshot = tmp_path / "hub" / "models--org--sea-GGUF" / "snapshots" / COMMIT
    assert {key: entry.path for key, entry in models.items()} == {
        "org/sea-GGUF:Q4_K_M": snapshot / "sea-q4_k_m.gguf",
        "org/sea-GGUF:Q4_K_XL": snapshot / "sea-UD-Q4_K_XL.gguf",
        "org/sea-GGUF:Q8_0": snapshot / "Q8_0" / "sea-Q8_0-00001-of-00002.gguf",
    }
    assert all(not entry.invalid for entry in models.values())
    assert models["org/sea-GGUF:Q4_K_M"].mmproj == snapshot / "mmproj-Q8_0.gguf"
    assert models["org/sea-GGUF:Q4_K_M"].names == ("sea-q4_k_m.gguf", "sea-q4_k_m", "org/sea-GGUF")
    assert "org/sea-GGUF" not in models["org/sea-GGUF:Q8_0"].names
    assert len(models["org/sea-GGUF:Q8_0"].parts) == 2


def test_hub_file_without_tag_and_second_of_one_tag_are_listed_too(tmp_path: Path) -> None:
    (content,) = model(tmp_path / "content.gguf")
    hub_repo(
        tmp_path / "hub",
        "org/sea",
        {"model.gguf": content, "a-Q4_0.gguf": content, "b-Q4_0.gguf": content},
    )

    models = found(tmp_path, env={"HF_HUB_CACHE": str(tmp_path / "hub")})

    assert set(models) == {"org/sea:Q4_0", "org/sea/b-Q4_0", "org/sea/model"}


def test_hub_takes_any_ref_without_main_and_no_hostile_one(tmp_path: Path) -> None:
    (content,) = model(tmp_path / "content.gguf")
    hub_repo(tmp_path / "hub", "org/sea", {"s-Q4_0.gguf": content}, ref="v1")
    hostile = hub_repo(tmp_path / "hub", "org/sky", {"s-Q4_0.gguf": content})
    (hostile / "refs" / "main").write_text("../../../elsewhere")
    escape = hub_repo(tmp_path / "hub", "org/escape", {"s-Q4_0.gguf": content})
    link = escape / "snapshots" / COMMIT / "s-Q4_0.gguf"
    link.unlink()
    link.symlink_to(content)

    models = found(tmp_path, env={"HF_HUB_CACHE": str(tmp_path / "hub")})

    assert {key: entry.invalid for key, entry in models.items()} == {
        "org/sea:Q4_0": "",
        "org/escape:Q4_0": "a link that leads out of the folder",
    }


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, ".cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/huggingface/hub"),
        ({"HF_HOME": "{home}/hf", "XDG_CACHE_HOME": "{home}/xdg"}, "hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "{home}/old", "HF_HOME": "{home}/hf"}, "old"),
        ({"HF_HUB_CACHE": "{home}/hub", "HUGGINGFACE_HUB_CACHE": "{home}/old"}, "hub"),
        ({"LLAMA_CACHE": "{home}/llama", "HF_HUB_CACHE": "{home}/hub"}, "llama"),
        ({"LLAMA_CACHE": "", "HF_HUB_CACHE": "{home}/hub"}, "hub"),
    ],
)
def test_hub_cache_is_where_llama_cpp_looks(
    tmp_path: Path, env: dict[str, str], place: str
) -> None:
    (content,) = model(tmp_path / "content.gguf")
    hub_repo(tmp_path / place, "org/sea", {"s-Q4_0.gguf": content})

    env = {key: value.format(home=tmp_path) for key, value in env.items()}

    assert set(found(tmp_path, env=env)) == {"org/sea:Q4_0"}


@pytest.mark.parametrize(
    ("platform", "env", "place"),
    [
        ("linux", {}, ".cache/llama.cpp"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/llama.cpp"),
        ("darwin", {}, "Library/Caches/llama.cpp"),
        ("win32", {"LOCALAPPDATA": "{home}/Local"}, "Local/llama.cpp"),
        ("linux", {"LLAMA_CACHE": "{home}/own"}, "own"),
    ],
)
def test_flat_cache_is_read_with_and_without_manifests(
    tmp_path: Path, platform: str, env: dict[str, str], place: str
) -> None:
    cache = tmp_path / place
    model(cache / "org_sea_dir_sea-Q4_K_M.gguf")
    mmproj = projector(cache / "org_sea_mmproj-f16.gguf")
    model(cache / "loose.gguf")
    manifest = {
        "ggufFile": {"rfilename": "dir/sea-Q4_K_M.gguf", "size": 1},
        "mmprojFile": {"rfilename": "mmproj-f16.gguf"},
    }
    for tag in ("latest", "Q4_K_M"):
        (cache / f"manifest=org=sea={tag}.json").write_text(json.dumps(manifest))
    (cache / "manifest=org=sky=Q4_0.json").write_text("{")
    (cache / "manifest=org=fog=Q4_0.json").write_text('{"ggufFile": {"rfilename": "gone.gguf"}}')
    os.mkfifo(cache / "manifest=org=pipe=Q4_0.json")

    env = {key: value.format(home=tmp_path) for key, value in env.items()}
    models = found(tmp_path, env=env, platform=platform)

    assert set(models) == {"org/sea:Q4_K_M", "loose"}
    sea = models["org/sea:Q4_K_M"]
    assert sea.source is ModelSource.LLAMA_CACHE
    assert sea.mmproj == mmproj
    assert sea.names == (
        "org/sea:latest",
        "org/sea",
        "org_sea_dir_sea-Q4_K_M.gguf",
        "org_sea_dir_sea-Q4_K_M",
    )
    assert models["loose"].mmproj is None


def test_file_in_a_cache_keeps_its_cache_id_when_a_folder_covers_it(tmp_path: Path) -> None:
    (content,) = model(tmp_path / "content.gguf")
    hub_repo(tmp_path / "hub", "org/sea", {"s-Q4_0.gguf": content})

    models = found(tmp_path, tmp_path / "hub", env={"HF_HUB_CACHE": str(tmp_path / "hub")})

    assert set(models) == {"org/sea:Q4_0"}
