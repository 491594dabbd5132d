from pathlib import Path

import pytest

from llama_router.hub.environment import source


def test_what_is_given_counts_for_more_than_the_environment(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "https://mirror.example/", "HF_TOKEN": "hf_env"}
    found = source(env, tmp_path)
    assert (found.endpoint, found.token) == ("https://mirror.example", "hf_env")
    found = source({**env, "MODEL_ENDPOINT": "https://m.example"}, tmp_path, token="hf_given")
    assert (found.endpoint, found.token) == ("https://m.example", "hf_given")
    assert source(env, tmp_path, endpoint="http://lan:80").endpoint == "http://lan:80"


def test_the_saved_token_is_for_its_own_hub(tmp_path: Path) -> None:
    saved = tmp_path / ".cache" / "huggingface" / "token"
    saved.parent.mkdir(parents=True)
    saved.write_text("hf_saved\n")
    assert source({}, tmp_path).token == "hf_saved"
    assert source({"HF_ENDPOINT": "https://mirror.example"}, tmp_path).token == ""
    other = tmp_path / "token"
    other.write_text("hf_other")
    assert source({"HF_HOME": str(tmp_path)}, tmp_path).token == "hf_other"
    assert source({"HF_TOKEN_PATH": str(tmp_path / "no")}, tmp_path).token == ""


def test_a_token_that_cannot_be_sent_is_none(tmp_path: Path) -> None:
    assert source({"HF_TOKEN": "a\nb"}, tmp_path).token == ""


def test_it_is_not_shown(tmp_path: Path) -> None:
    assert "hf_secret" not in repr(source({"HF_TOKEN": "hf_secret"}, tmp_path))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(name: str, tmp_path: Path) -> None:
    assert source({name: "1"}, tmp_path).is_offline
    assert not source({name: "0"}, tmp_path).is_offline
    assert source({}, tmp_path, is_offline=True).is_offline
