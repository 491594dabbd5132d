"""From files to models: split parts put together, projectors told apart, headers checked."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from llama_router.catalog.gguf_reader import GgufError, GgufInfo, read_gguf
from llama_router.catalog.model import CatalogModel, ModelSource

GGUF_SUFFIX = ".gguf"
_MAX_PARTS = 1000  # the largest models have about 100
_MAX_NAMED_PARTS = 5  # in a message

# As llama.cpp, common/download.cpp.
_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"[-.]([A-Z0-9_]+)\Z", re.IGNORECASE | re.ASCII)
_PROJECTOR = "mmproj"
_NOT_MODELS = (_PROJECTOR, "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_NOT_MODEL_TYPES = (_PROJECTOR, "adapter", "imatrix")


@dataclass(frozen=True)
class GgufFile:
    """A file whose name ends in .gguf. ``relative`` is its path below the folder searched.

    ``problem`` says why it must not be opened, if so.
    """

    path: Path
    relative: PurePosixPath
    status: os.stat_result | None
    problem: str = ""

    @cached_property
    def split(self) -> tuple[str, int, int]:
        """Path without suffix and part number, part (from 1), count of parts."""
        bare = str(self.relative).removesuffix(GGUF_SUFFIX)
        match = _SPLIT.fullmatch(bare)
        return (match[1], int(match[2]), int(match[3])) if match else (bare, 1, 1)

    @property
    def stem(self) -> str:
        """File name without suffix and part number."""
        return PurePosixPath(self.split[0]).name

    @property
    def tag(self) -> str:
        """The quantisation as llama.cpp reads it from the name, upper-case; empty if none."""
        match = _TAG.search(self.split[0])
        return match[1].upper() if match else ""

    @cached_property
    def header(self) -> GgufInfo | GgufError:
        """The header, or why there is none."""
        if self.problem:
            return GgufError(self.problem)
        try:
            return read_gguf(self.path)
        except GgufError as error:
            return error

    @property
    def is_projector(self) -> bool:
        """Whether this is a readable projector, by its name or its content."""
        if isinstance(self.header, GgufError):
            return False
        named_so = _PROJECTOR in self.relative.name.lower()
        return named_so or self.header.general_type == _PROJECTOR or self._is_clip(self.header)

    @property
    def is_model(self) -> bool:
        """Whether this is a model by its name and content; unreadable ones get reported as such."""
        name = self.relative.name.lower()
        if any(part in name for part in _NOT_MODELS):
            return False
        if isinstance(self.header, GgufError):
            return True
        return self.header.general_type not in _NOT_MODEL_TYPES and not self._is_clip(self.header)

    @staticmethod
    def _is_clip(header: GgufInfo) -> bool:
        return header.architecture == "clip"


@dataclass(frozen=True)
class Candidate:
    """A model found, with the ids it takes in turn when the first is another model's."""

    id: str
    longer_id: str
    longest_id: str
    names: tuple[str, ...]
    source: ModelSource
    parts: tuple[GgufFile, ...]
    mmproj: Path | None
    missing: str = ""

    @property
    def file_key(self) -> tuple[int, int]:
        """Identity of the first part's file, however it is named."""
        status = self.parts[0].status
        return (status.st_dev, status.st_ino) if status else (-1, hash(self.parts[0].path))

    def model(self, model_id: str) -> CatalogModel:
        """Give the catalogue's entry under that id."""
        statuses = [part.status for part in self.parts if part.status]
        return CatalogModel(
            id=model_id,
            path=self.parts[0].path,
            source=self.source,
            names=tuple(dict.fromkeys(name for name in self.names if name != model_id)),
            parts=tuple(part.path for part in self.parts) if len(self.parts) > 1 else (),
            mmproj=self.mmproj,
            size_bytes=sum(status.st_size for status in statuses),
            modified_at_s=max((status.st_mtime for status in statuses), default=0.0),
            invalid=self.missing or _problem(self.parts),
        )


def gguf_file(path: Path, relative: PurePosixPath, root: str) -> GgufFile:
    """Look at a directory entry; ``root`` is the real path that it must not leave by links."""
    # Bytes of a name that are no UTF-8 cannot be part of an id that goes into JSON.
    relative = PurePosixPath(os.fsencode(relative).decode("utf-8", "replace"))
    try:
        status = path.stat()
        real = Path(os.path.realpath(path))
    except OSError as error:
        return GgufFile(path, relative, None, f"cannot be read: {error.strerror or error}")
    if not stat.S_ISREG(status.st_mode):
        return GgufFile(path, relative, status, "not a regular file")
    if not real.is_relative_to(root):
        return GgufFile(path, relative, status, "a link that leads out of the folder")
    return GgufFile(path, relative, status)


def model_groups(files: Iterable[GgufFile]) -> Iterator[tuple[tuple[GgufFile, ...], str]]:
    """Put split files together: (parts in order, what is missing) for each model."""
    groups: dict[tuple[str, int], list[GgufFile]] = {}
    for file in sorted(files, key=lambda file: str(file.relative)):
        prefix, _part, count = file.split
        groups.setdefault((prefix, count), []).append(file)
    for (_prefix, count), parts in groups.items():
        if not parts[0].is_model:
            continue
        present = {part.split[1] for part in parts}
        yield tuple(parts), _missing_parts(present, count)


def _missing_parts(present: set[int], count: int) -> str:
    if count > _MAX_PARTS:
        return f"incomplete: {count} parts are more than the possible {_MAX_PARTS}"
    absent = sorted(set(range(1, count + 1)) - present)
    if not absent:
        return "" if present <= set(range(1, count + 1)) else "a part's number exceeds their count"
    named = ", ".join(map(str, absent[:_MAX_NAMED_PARTS]))
    if len(absent) > _MAX_NAMED_PARTS:
        named += ", ..."
    return f"incomplete: of {count} parts, missing: {named}"


def _problem(parts: tuple[GgufFile, ...]) -> str:
    for part in parts:
        header = part.header
        where = f"{part.relative.name}: " if len(parts) > 1 else ""
        if isinstance(header, GgufError):
            return f"{where}{header.reason}"
        _prefix, number, count = part.split
        if count > 1 and (header.split_no, header.split_count) != (number - 1, count):
            return f"{where}says it is part {header.split_no + 1} of {header.split_count}"
        if count == 1 and header.split_count > 1:
            return f"part {header.split_no + 1} of {header.split_count} under another name"
    return ""
