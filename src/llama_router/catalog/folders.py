"""Models in an ordinary folder and below."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from llama_router.catalog.candidate import (
    DRAFTS,
    GGUF_SUFFIX,
    Candidate,
    GgufFile,
    Place,
    best_draft,
    gguf_file,
    model_groups,
    printable,
)
from llama_router.catalog.headers import Headers
from llama_router.catalog.model import ModelSource

_MAX_DEPTH = 12  # folders below the given one; LM Studio needs 2, a hub snapshot 5
# In all: a folder given by mistake, such as "/", ends the scan soon; looking at so many takes 2 s.
_MAX_ENTRIES = 250_000

# Best first; any other type comes after them.
_PROJECTOR_TYPES = ("BF16", "F16", "F32")
_ROLE_WORDS = frozenset(
    {"mmproj", "model", "vision", "projector", *(mark.strip("-") for mark in DRAFTS)}
)
_QUANTIZATION = re.compile(r"[-_.](?:ud-)?(?:i?q[0-9]\w*|b?f[0-9]{2}|mxfp[0-9]\w*)\Z")

_logger = logging.getLogger(__name__)


def scan(root: Path, headers: Headers) -> list[Candidate]:
    """Find the models in ``root`` and its subfolders. Links to folders are not followed."""
    return _candidates(root, walk(root, headers, is_required=True))


def scan_one(folder: Path, headers: Headers) -> list[Candidate]:
    """Find the models in ``folder`` itself, wherever links of files lead."""
    anywhere = Path(os.path.realpath(folder)).anchor
    files = walk(folder, headers, stay_below=Path(anywhere), max_depth=0)
    return _candidates(folder, files)


def _candidates(root: Path, found_files: Iterable[GgufFile]) -> list[Candidate]:
    found = []
    by_folder: dict[PurePosixPath, list[GgufFile]] = {}
    for file in found_files:
        by_folder.setdefault(file.relative.parent, []).append(file)
    root_name = printable(root.absolute().name)
    for files in by_folder.values():
        groups = list(model_groups(files))
        projectors = [file for file in files if file.is_projector]
        drafts = [file for file in files if file.draft_kind is not None]
        pairs = bool(projectors or drafts)
        alone = pairs and len({_bare(parts[0]) for parts, _missing in groups}) <= 1
        for parts, missing in groups:
            first = parts[0]
            relative = first.split[0]
            found.append(
                Candidate(
                    id=first.stem,
                    longer_id=relative,
                    longest_id=f"{root_name}/{relative}",
                    names=(first.relative.name, first.stem),
                    source=ModelSource.MODELS_DIR,
                    parts=parts,
                    mmproj=best_projector(
                        file for file in projectors if alone or _fits(file, first)
                    ),
                    draft=best_draft(
                        (file for file in drafts if alone or _fits(file, first)), first
                    ),
                    missing=missing,
                )
            )
    return found


def walk(
    root: Path,
    headers: Headers,
    *,
    stay_below: Path | None = None,
    max_depth: int = _MAX_DEPTH,
    is_required: bool = False,
) -> Iterator[GgufFile]:
    """Give every entry named *.gguf in ``root`` and below, in a stable order.

    Links to files may not leave ``stay_below``, by default ``root``. Bounded in depth and entries;
    folders that cannot be listed are logged and left out. ``is_required``: so is a missing root.
    """
    start = _start(root, stay_below or root) if headers.looks_into(root) else None
    left = _MAX_ENTRIES
    pending = [start] if start is not None else []
    while pending:
        place = pending.pop()
        if not headers.looks_into(place.folder):
            continue
        try:
            entries, looked_at = _entries(place.folder, left, headers)
        except OSError as error:
            if place is not start or not isinstance(error, FileNotFoundError):
                _logger.warning("%s: cannot be listed: %s", place.folder, error.strerror)
            elif is_required:
                _logger.warning("the models folder %s does not exist", root)
            continue
        left -= looked_at
        if left < 0:
            _logger.warning("%s: more than %d entries; stopped", root, _MAX_ENTRIES)
            return
        for name, is_folder, is_link in entries:
            if not is_folder:
                yield gguf_file(place, name, headers, is_link=is_link)
            elif len(place.relative.parts) < max_depth and not name.startswith("."):
                pending.append(place.below(name))


def _start(root: Path, stay_below: Path) -> Place | None:
    bounds = os.path.realpath(stay_below)
    start = Place(root, PurePosixPath(), os.path.realpath(root), bounds)
    return start if Path(start.real).is_relative_to(bounds) else None


def _entries(
    folder: Path, max_count: int, headers: Headers
) -> tuple[list[tuple[str, bool, bool]], int]:
    """List what may hold models, as (name, is it a folder, is it a link), and count all there is.

    Counting ends after ``max_count``. Raises `OSError`.
    """
    found, count = [], 0
    with os.scandir(folder) as listing:
        for entry in listing:
            count += 1
            if count > max_count:
                break
            # Some file systems are asked for each entry whether it is a folder.
            headers.looks_into(folder)
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.name.endswith(GGUF_SUFFIX):
                found.append((entry.name, is_folder, entry.is_symlink()))
    return sorted(found, reverse=True), count


def best_projector(projectors: Iterable[GgufFile]) -> GgufFile | None:
    """Choose among projectors: BF16, F16, F32, others by name."""
    return min(projectors, key=_rank, default=None)


def _rank(projector: GgufFile) -> tuple[int, str]:
    words = re.split(r"[-_.]", projector.stem.upper())
    for rank, name in enumerate(_PROJECTOR_TYPES):
        if name in words:
            return rank, projector.stem
    return len(_PROJECTOR_TYPES), projector.stem


def _fits(projector: GgufFile, model: GgufFile) -> bool:
    """In a folder of several models, what is named after one of them is not another's."""
    own_name, model_name = _bare(projector), _bare(model)
    return own_name in model_name or model_name in own_name


def _bare(file: GgufFile) -> str:
    return _bare_name(file.stem.lower())


@lru_cache(maxsize=65_536)  # each is compared with each projector of its folder
def _bare_name(stem: str) -> str:
    """What a name says of the model itself: empty for "mmproj-model-f16"."""
    words = re.split(r"[-_.]+", _QUANTIZATION.sub("", stem))
    return "".join(word for word in words if word not in _ROLE_WORDS)
