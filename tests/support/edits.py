"""Edits of a YAML text, and what they have changed in it."""

import difflib
from pathlib import Path

from llama_router.config.edit import Edit, edited
from llama_router.config.problems import Keys

YAML = Path("c.yaml")


def set_(text: str, keys: Keys, value: object) -> str:
    return edited(text, [Edit("set", keys, value)], YAML)


def remove(text: str, keys: Keys) -> str:
    return edited(text, [Edit("remove", keys)], YAML)


def changed(before: str, after: str) -> list[str]:
    """The lines taken out and put in."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[0] + line[2:] for line in lines if line[0] in "+-"]
