from pathlib import Path

import pytest

from llama_router.config.importers.ollama_store import StoreError, find_in_store, store_folder
from tests.config.importers.stores import stored_model


def test_a_name_leads_to_the_file_of_its_model(tmp_path: Path) -> None:
    blob = stored_model(tmp_path, "llama3", "latest")
    for name in ("llama3", "llama3:latest", "library/llama3", "registry.ollama.ai/library/llama3"):
        assert find_in_store(tmp_path, name).path == blob
    assert find_in_store(tmp_path, "llama3").mmproj is None


@pytest.mark.parametrize(
    "name", ["other", "../x", "a/b/c/d", "llama3:../x", "", ":", "a//b", "llama3:\0"]
)
def test_a_name_that_is_not_there_leads_nowhere(tmp_path: Path, name: str) -> None:
    stored_model(tmp_path, "llama3", "latest")
    with pytest.raises(StoreError):
        find_in_store(tmp_path, name)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"layers": 3}', '{"layers": [3, {}]}'])
def test_a_manifest_that_says_nothing_is_a_fault(tmp_path: Path, content: str) -> None:
    stored_model(tmp_path, "llama3", "latest")
    manifest = tmp_path / "manifests/registry.ollama.ai/library/llama3/latest"
    manifest.write_text(content)
    with pytest.raises(StoreError, match="manifest of llama3"):
        find_in_store(tmp_path, "llama3")


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    stored_model(tmp_path, "llama3", "latest").unlink()
    with pytest.raises(StoreError, match="ollama pull llama3"):
        find_in_store(tmp_path, "llama3")


def test_the_store_is_where_ollama_says(tmp_path: Path) -> None:
    assert store_folder({}, tmp_path) == tmp_path / ".ollama" / "models"
    assert store_folder({"OLLAMA_MODELS": "/big"}, tmp_path) == Path("/big")
