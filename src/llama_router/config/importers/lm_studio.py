"""LM Studio's folder of models, ``publisher/repository/*.gguf``, as models of ours."""

import re
from collections.abc import Iterator
from pathlib import Path

from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Native, Source
from llama_router.config.problems import ConfigError, Issue, Keys, Problem

FORM = "LM Studio folder"
# Its own, the newer before the older; the first line of the pointer names another home.
_POINTER = ".lmstudio-home-pointer"
_FOLDERS = (".lmstudio/models", ".cache/lm-studio/models")
MODELS_MAX_COUNT = 10_000

_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-[0-9]{5}", re.IGNORECASE)
_TAG = re.compile(r"[-.]([A-Za-z0-9_]+)$")
_NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
# The best projector for any quantisation of its model.
_PRECISIONS = ("bf16", "f16", "f32")


def default_folder(home: Path) -> Path | None:
    """Find the folder where LM Studio keeps its models; None when there is none."""
    places = [home / folder for folder in _FOLDERS]
    try:
        pointed = (home / _POINTER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    if pointed:
        places.insert(0, Path(pointed) / "models")
    return next((place for place in places if place.is_dir()), None)


class Folder:
    """The folder, as the place of what is said of its models."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place_of(self, keys: Keys) -> tuple[int, int]:  # noqa: ARG002 - a folder has no lines
        """Give no line."""
        return 0, 0

    def problem(self, issue: Issue) -> Problem:
        """Say it of the folder."""
        where = "/".join(str(key) for key in issue.keys)
        return Problem(str(self.path), 0, where, issue.message)


def translate(source: Source, folder: Path) -> Native:
    """Give the models of a folder as entries of our config.

    Reads names only; whether a file is whole is seen when the config is used. Raises ConfigError
    when it cannot be read.
    """
    native = Native()
    native.put(("version",), "1.0", ())
    taken: set[str] = set()
    for index, path in enumerate(_model_files(folder)):
        publisher, repository = path.parent.relative_to(folder).parts
        stem = _stem(path)
        tag = _TAG.search(stem)
        names = [f"{publisher}/{repository}:{tag[1].upper()}"] if tag else []
        names += [stem, f"{publisher}/{repository}/{stem}"]
        name = next(name for name in (*names, str(path)) if name not in taken)
        taken.add(name)
        place: Keys = (str(path.relative_to(folder)),)
        entry = {"name": name, "path": str(path)}
        projector = _projector_of(path)
        if projector is not None:
            entry["mmproj"] = str(projector)
        native.put(("models", index), entry, place)
        source.note(place, Fate.HONOURED, "file", "models[]", shown=str(place[0]))
    return native


def _model_files(folder: Path) -> Iterator[Path]:
    try:
        found = sorted(path for path in folder.glob("*/*/*.gguf") if path.is_file())
    except OSError as error:
        raise ConfigError([Problem(str(folder), 0, "", f"cannot be read: {error}")]) from error
    count = 0
    for path in found:
        part = _SPLIT.fullmatch(path.stem)
        is_first = part is None or int(part[2]) == 1
        if is_first and not any(word in path.name.lower() for word in _NOT_MODELS):
            count += 1
            if count > MODELS_MAX_COUNT:
                message = f"holds more than {MODELS_MAX_COUNT} models"
                raise ConfigError([Problem(str(folder), 0, "", message)])
            yield path.absolute()


def _stem(path: Path) -> str:
    part = _SPLIT.fullmatch(path.stem)
    return part[1] if part else path.stem


def _projector_of(path: Path) -> Path | None:
    found = sorted(p for p in path.parent.glob("*.gguf") if "mmproj" in p.name.lower())

    def rank(projector: Path) -> int:
        words = re.split(r"[^a-z0-9]+", projector.stem.lower())
        return next((i for i, p in enumerate(_PRECISIONS) if p in words), len(_PRECISIONS))

    return min(found, key=rank, default=None)
