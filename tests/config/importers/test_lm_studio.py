from pathlib import Path

import pytest

from llama_router.config.importers import lm_studio
from llama_router.config.importers.foreign import checked_lm_studio
from llama_router.config.importers.lm_studio import default_folder
from llama_router.config.problems import ConfigError


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_are_models_named_as_on_the_hub(tmp_path: Path) -> None:
    folder = filled(
        tmp_path,
        "org/Qwen-GGUF/Qwen-7B-Q4_K_M.gguf",
        "org/Qwen-GGUF/Qwen-7B-Instruct-Q4_K_M.gguf",
        "org/Vision/vision-q8_0.gguf",
        "org/Vision/mmproj-vision-f32.gguf",
        "org/Vision/mmproj-vision-F16.gguf",
        "org/Big/big-Q4_0-00001-of-00002.gguf",
        "org/Big/big-Q4_0-00002-of-00002.gguf",
        "org/Plain/plain.gguf",
        "stray.gguf",
        "org/notes.txt",
    )
    entries = {e["name"]: e for e in checked_lm_studio(folder).native.content["models"]}
    assert set(entries) == {
        "org/Qwen-GGUF:Q4_K_M",
        "Qwen-7B-Q4_K_M",
        "org/Vision:Q8_0",
        "org/Big:Q4_0",
        "plain",
    }
    assert entries["org/Vision:Q8_0"]["mmproj"].endswith("mmproj-vision-F16.gguf")
    assert entries["org/Big:Q4_0"]["path"].endswith("big-Q4_0-00001-of-00002.gguf")
    assert "mmproj" not in entries["plain"]


def test_the_same_folder_gives_the_same_names(tmp_path: Path) -> None:
    folder = filled(tmp_path, *(f"org/r{i}/model-Q4_0.gguf" for i in range(9)))
    first, again = checked_lm_studio(folder), checked_lm_studio(folder)
    assert first.native.content == again.native.content
    assert len(first.native.content["models"]) == 9


def test_a_folder_has_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_studio, "MODELS_MAX_COUNT", 1)
    filled(tmp_path, "a/b/c.gguf", "a/b/d.gguf")
    with pytest.raises(ConfigError, match="more than 1 models"):
        checked_lm_studio(tmp_path)


def test_the_folder_is_where_lm_studio_has_it(tmp_path: Path) -> None:
    assert default_folder(tmp_path) is None
    (tmp_path / ".cache/lm-studio/models").mkdir(parents=True)
    assert default_folder(tmp_path) == tmp_path / ".cache/lm-studio/models"
    (tmp_path / ".lmstudio/models").mkdir(parents=True)
    assert default_folder(tmp_path) == tmp_path / ".lmstudio/models"
    (tmp_path / "elsewhere/models").mkdir(parents=True)
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'elsewhere'}\n")
    assert default_folder(tmp_path) == tmp_path / "elsewhere/models"
