"""Files that nobody would write: whatever is in them, they are read or refused."""

import random
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from llama_router.config.importers import read_foreign
from llama_router.config.importers.foreign import checked_modelfile
from llama_router.config.problems import ConfigError
from tests.config.importers.swaps import ENV, FILES

ITERATIONS_COUNT = 40
JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        10**30,
        1.5,
        float("inf"),
        "",
        " ",
        "${PORT}",
        "${PID}",
        "${x}",
        "${env.NO}",
    ),
    *(
        "x" * 3000,
        "\x00",
        "\u202e",
        "a b",
        "http://[",
        "http://:1",
        "-",
        "'",
        '"',
        "\\",
        "&",
        "(a|",
    ),
    *([], {}, [None], {"a": None}, [[["x"]]], {"": ""}, ["a", 1, {}], "${env.ENGINE}", "on", "1e3"),
)


def _dice() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed={seed}")  # noqa: T201 - to run it again
    return random.Random(seed)  # noqa: S311 - it is to be repeatable


def _spoiled(value: Any, dice: random.Random) -> Any:  # noqa: ANN401 - any YAML value
    """Give the value with one part of it replaced."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.1:
        return dice.choice(JUNK)
    if isinstance(value, list):
        place = dice.randrange(len(value))
        return [_spoiled(item, dice) if i == place else item for i, item in enumerate(value)]
    name = dice.choice(list(value))
    if dice.random() < 0.1:
        return {**value, dice.choice(("", "models", "macros", "x.y", "*", name * 2)): value[name]}
    return {key: _spoiled(item, dice) if key == name else item for key, item in value.items()}


@pytest.mark.parametrize("name", ["llama-swap.yaml", "llama-swap-matrix.yaml"])
def test_a_spoiled_config_is_read_or_refused_in_words(tmp_path: Path, name: str) -> None:
    dice = _dice()
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load(FILES / name)
    path = tmp_path / "llama-swap.yaml"
    refused: list[ConfigError] = []
    for _ in range(ITERATIONS_COUNT):
        spoiled = whole
        for _ in range(dice.randrange(1, 4)):
            spoiled = _spoiled(spoiled, dice)
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(spoiled, file)
        try:
            read_foreign(path, env=ENV)
        except ConfigError as error:
            refused.append(error)
    assert refused
    for fault in refused:
        assert {problem.file for problem in fault.problems} == {str(path)}


def test_bytes_that_are_no_file_of_theirs_are_refused_in_words(tmp_path: Path) -> None:
    dice = _dice()
    alphabet = b"[]=;# \n\t\"'-aA1\xff\x00\xc3FROM PARAMETER"
    refused: list[ConfigError] = []
    for name in ("models.ini", "Modelfile"):
        path = tmp_path / name
        for _ in range(ITERATIONS_COUNT):
            path.write_bytes(bytes(dice.choices(alphabet, k=dice.randrange(200))))
            try:
                if path.suffix:
                    read_foreign(path, env={})
                else:
                    checked_modelfile(path, None, {}, tmp_path)
            except ConfigError as error:
                refused.append(error)
    assert refused
    assert all(error.problems for error in refused)


def test_aliases_of_aliases_and_endless_nesting_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "llama-swap.yaml"
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 9)]
    path.write_text("models: {}\n" + "\n".join(lines))
    with pytest.raises(ConfigError, match="more than"):
        read_foreign(path, env={})
    path.write_text("models: {m: " + "[" * 400 + "]" * 400 + "}\n")
    with pytest.raises(ConfigError, match="nested deeper"):
        read_foreign(path, env={})
