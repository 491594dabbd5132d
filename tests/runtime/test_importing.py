from pathlib import Path

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.runtime.importing import pick


def found(folder: Path, name: str, **rest: object) -> CatalogModel:
    path = folder / f"{name}.gguf"
    path.touch()
    return CatalogModel(id=name, path=path, source=ModelSource.MODELS_DIR, **rest)  # type: ignore[arg-type]  # plain data


def test_models_become_entries_with_their_projectors(tmp_path: Path) -> None:
    projector = tmp_path / "mmproj.gguf"
    models = [found(tmp_path, "fox"), found(tmp_path, "owl", mmproj=projector)]
    picked = pick(Config(), models, "manual")
    assert picked.entries == (
        {"name": "fox", "path": str(tmp_path / "fox.gguf"), "state": "manual"},
        {
            "name": "owl",
            "path": str(tmp_path / "owl.gguf"),
            "state": "manual",
            "mmproj": str(projector),
        },
    )
    config = Config.model_validate({"models": picked.entries})
    again = pick(config, models, "manual")
    assert (again.entries, again.skipped) == ((), ("fox", "owl"))


def test_a_file_is_known_by_any_link_to_it(tmp_path: Path) -> None:
    model = found(tmp_path, "fox")
    link = tmp_path / "link.gguf"
    link.symlink_to(tmp_path / "fox.gguf")
    config = Config.model_validate({"models": [{"name": "mine", "path": str(link)}]})
    assert pick(config, [model], "manual").skipped == ("fox",)


def test_what_cannot_be_run_or_named_is_told(tmp_path: Path) -> None:
    config = Config.model_validate({"models": [{"name": "mine", "aliases": ["fox"]}]})
    models = [found(tmp_path, "fox"), found(tmp_path, "ill", invalid="cut off")]
    picked = pick(config, models, "manual")
    assert picked.entries == ()
    assert picked.warnings == (
        "fox is the name of another model already",
        "ill is left out: cut off",
    )
