"""Models in an ordinary folder and below."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llama_router.catalog.candidate import GGUF_SUFFIX, Candidate, GgufFile, gguf_file, model_groups
from llama_router.catalog.model import ModelSource

_MAX_DEPTH = 8  # folders below the given one; LM Studio needs 2, a hub snapshot 5
_MAX_ENTRIES = 100_000  # in all: a folder given by mistake, such as "/", ends the scan soon

# Best first; any other type comes after them.
_PROJECTOR_TYPES = ("BF16", "F16", "F32")
_ROLE_WORDS = frozenset({"mmproj", "model", "vision", "projector"})
_QUANTIZATION = re.compile(r"[-_.](?:ud-)?(?:i?q[0-9]\w*|b?f[0-9]{2}|mxfp[0-9]\w*)\Z")

_logger = logging.getLogger(__name__)


def scan(root: Path) -> list[Candidate]:
    """Find the models in ``root`` and its subfolders. Links to folders are not followed."""
    found = []
    by_folder: dict[PurePosixPath, list[GgufFile]] = {}
    for file in walk(root):
        by_folder.setdefault(file.relative.parent, []).append(file)
    for files in by_folder.values():
        groups = list(model_groups(files))
        projectors = [file for file in files if file.is_projector]
        alone = len({_bare(parts[0]) for parts, _missing in groups}) <= 1
        for parts, missing in groups:
            first = parts[0]
            relative = first.split[0]
            found.append(
                Candidate(
                    id=first.stem,
                    longer_id=relative,
                    longest_id=f"{root.absolute().name}/{relative}",
                    names=(first.relative.name, first.stem),
                    source=ModelSource.MODELS_DIR,
                    parts=parts,
                    mmproj=_best_projector(projectors, first, alone=alone),
                    missing=missing,
                )
            )
    return found


def walk(root: Path, *, stay_below: Path | None = None) -> Iterator[GgufFile]:
    """Give every entry named *.gguf in ``root`` and below, in a stable order.

    Links to files may not leave ``stay_below``, by default ``root``. Bounded in depth and entries;
    folders that cannot be listed are logged and left out.
    """
    real_root = os.path.realpath(stay_below or root)
    entries_left = _MAX_ENTRIES
    pending = [(root, PurePosixPath())]
    while pending:
        folder, relative = pending.pop()
        try:
            with os.scandir(folder) as listing:
                entries = []
                for entry in listing:
                    entries_left -= 1
                    if entries_left < 0:
                        _logger.warning("%s: more than %d entries; stopped", root, _MAX_ENTRIES)
                        return
                    if entry.name.endswith(GGUF_SUFFIX) or entry.is_dir(follow_symlinks=False):
                        entries.append((entry.name, entry.is_dir(follow_symlinks=False)))
        except OSError as error:
            if folder != root or not isinstance(error, FileNotFoundError):
                _logger.warning("%s: cannot be listed: %s", folder, error.strerror)
            continue
        for name, is_folder in sorted(entries, reverse=True):
            if not is_folder:
                yield gguf_file(folder / name, relative / name, real_root)
            elif len(relative.parts) < _MAX_DEPTH and not name.startswith("."):
                pending.append((folder / name, relative / name))


def _best_projector(projectors: list[GgufFile], model: GgufFile, *, alone: bool) -> Path | None:
    """Choose among the projectors of the model's folder: BF16, F16, F32, others by name.

    In a folder of several models a projector that is named after one of them is not another's.
    """
    fitting = [file for file in projectors if alone or _fits(file, model)]
    return min(fitting, key=_rank).path if fitting else None


def _rank(projector: GgufFile) -> tuple[int, str]:
    words = re.split(r"[-_.]", projector.stem.upper())
    for rank, name in enumerate(_PROJECTOR_TYPES):
        if name in words:
            return rank, projector.stem
    return len(_PROJECTOR_TYPES), projector.stem


def _fits(projector: GgufFile, model: GgufFile) -> bool:
    own_name, model_name = _bare(projector), _bare(model)
    return own_name in model_name or model_name in own_name


def _bare(file: GgufFile) -> str:
    """What a name says of the model itself: empty for "mmproj-model-f16"."""
    words = re.split(r"[-_.]+", _QUANTIZATION.sub("", file.stem.lower()))
    return "".join(word for word in words if word not in _ROLE_WORDS)
