from pathlib import Path
from typing import Any

import pytest

from llama_router.config.defaults import TEMPLATE
from llama_router.config.importers import Foreign, read_foreign
from llama_router.config.importers.writing import merged_text, rendered
from llama_router.config.load import load_text

FILES = Path(__file__).parent / "files"
ENV = {
    "ENGINE": "engine",
    "START_PORT": "9000",
    "KEY": "k",
    "FIXED_PORT": "9999",
    "STOPPER": "stopper",
    "PEER": "http://127.0.0.1:7000",
    "PEER_KEY": "pk",
}
OURS = Path("config.yaml")


def swap(name: str = "llama-swap.yaml") -> Foreign:
    foreign = read_foreign(FILES / name, env=ENV)
    assert foreign is not None
    return foreign


def content_of(text: str) -> dict[str, Any]:
    return load_text(text, OURS, env=ENV).document.plain()[0]


@pytest.mark.parametrize(
    "name", ["llama-swap.yaml", "llama-swap-early.yaml", "llama-swap-matrix.yaml"]
)
def test_what_is_written_means_what_was_read(name: str) -> None:
    foreign = swap(name)
    text = rendered(foreign.native.content, foreign.report)
    assert load_text(text, OURS, env=ENV).config == foreign.config
    assert text.startswith(f"# llama-router's configuration, from {name} (llama-swap config).")


def test_the_file_says_what_it_does_not_carry() -> None:
    foreign = swap()
    text = rendered(foreign.native.content, foreign.report)
    assert "# not carried: logTimeFormat (line 5): the router logs to stderr" in text
    assert "# Groups or the matrix alone say what runs side by side" in text


@pytest.mark.parametrize("before", [TEMPLATE, "# mine\nrouter:\n  port: 9  # why\n"])
def test_an_import_adds_and_the_same_again_changes_nothing(before: str) -> None:
    foreign = swap()
    once = merged_text(before, OURS, foreign.native.content)
    assert {line.strip() for line in before.splitlines() if "#" in line} <= {
        line.strip() for line in once.text.splitlines()
    }
    config = load_text(once.text, OURS, env=ENV).config
    assert config.models == foreign.config.models
    assert config.groups == foreign.config.groups
    assert config.router.base_port == foreign.config.router.base_port
    again = merged_text(once.text, OURS, foreign.native.content)
    assert again.text == once.text
    assert again.kept == once.kept


def test_what_a_file_says_stays_and_is_told() -> None:
    before = (
        "router:\n  stop_grace_s: 7\n  api_keys: [mine, {key: sk-second, name: you}]\n"
        "models:\n  - name: plain\n    group: own   # mine\n    priority: 10\n"
        "groups:\n  turns:\n    swap: false\n"
    )
    merged = merged_text(before, OURS, swap().native.content)
    content = content_of(merged.text)
    assert content["router"]["stop_grace_s"] == 7
    assert content["router"]["api_keys"] == [
        "mine",
        {"key": "sk-second", "name": "you"},
        "${env.KEY}",
    ]
    plain = next(model for model in content["models"] if model["name"] == "plain")
    assert plain["group"] == "own"
    assert plain["spawn"]["command"][0] == "${env.ENGINE}"
    assert "group: own   # mine" in merged.text
    assert merged.kept == ("router.stop_grace_s", "models.name=plain.group", "groups.turns.swap")


def test_json_stays_json() -> None:
    merged = merged_text(
        '{"version": "1.0", "models": []}\n', Path("c.json"), swap().native.content
    )
    assert merged.text.startswith("{")
    config = load_text(merged.text, Path("c.json"), env=ENV).config
    assert config.models == swap().config.models


def test_many_models_are_added_together_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "llama-swap.yaml"
    entries = [f"  m{i}: {{cmd: 'x ${{PORT}}', ttl: {i}}}\n" for i in range(40)]
    path.write_text("models:\n" + "".join(entries))
    foreign = read_foreign(path, env={})
    assert foreign is not None
    before = "# mine\nmodels:\n  # the first\n  - name: own   # why\n    path: /m.gguf\n"
    merged = merged_text(before, OURS, foreign.native.content)
    for comment in ("# mine", "# the first", "# why"):
        assert comment in merged.text
    models = load_text(merged.text, OURS, env={}).config.models
    assert [model.name for model in models] == ["own", *(f"m{i}" for i in range(40))]
    assert merged_text(merged.text, OURS, foreign.native.content).text == merged.text
