"""From files to models: split parts put together, projectors told apart, headers checked."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import msgspec

from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.headers import Header, Headers
from llama_router.catalog.model import CatalogModel, Metadata, ModelSource

GGUF_SUFFIX = ".gguf"
LEADS_OUT = "a link that leads out of the folder"
_MAX_PARTS = 1000  # the largest models have about 100
_MAX_NAMED_PARTS = 5  # in a message
_MAX_NAMES = 32  # of one file that is linked to over and over

# As llama.cpp, common/download.cpp.
_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"[-.]([A-Z0-9_]+)\Z", re.IGNORECASE | re.ASCII)
PROJECTOR = "mmproj"
#: Marks in the names of small models that draft tokens for another, best first.
DRAFTS = ("mtp-", "dspark-", "dflash-", "eagle3-")
_NOT_MODELS = (PROJECTOR, "imatrix", *DRAFTS)
_NOT_MODEL_TYPES = (PROJECTOR, "adapter", "imatrix")
_NOT_MODEL_ARCHITECTURES = ("clip", "controlvector", "imatrix")


@dataclass(frozen=True)
class GgufFile:
    """A file whose name ends in .gguf. ``relative`` is its path below the folder searched.

    ``problem`` says why it must not be opened, if so; ``real`` where it is, if that is elsewhere.
    """

    path: Path
    relative: PurePosixPath
    status: os.stat_result | None
    headers: Headers
    problem: str = ""
    real: Path | None = None

    @cached_property
    def split(self) -> tuple[str, int, int]:
        """Path without suffix and part number, part (from 1), count of parts."""
        bare = str(self.relative).removesuffix(GGUF_SUFFIX)
        match = _SPLIT.fullmatch(bare)
        return (match[1], int(match[2]), int(match[3])) if match else (bare, 1, 1)

    @property
    def stem(self) -> str:
        """File name without suffix and part number."""
        return self.split[0].rpartition("/")[2]

    @property
    def tag(self) -> str:
        """The quantisation as llama.cpp reads it from the name, upper-case; empty if none."""
        match = _TAG.search(self.split[0])
        return match[1].upper() if match else ""

    @property
    def bits(self) -> int:
        """The first number in the tag, 0 if there is none."""
        digits = re.search(r"[0-9]{1,3}", self.tag)
        return int(digits[0]) if digits else 0

    @cached_property
    def header(self) -> Header | GgufError:
        """The header, or why there is none."""
        if self.problem or self.status is None:
            return GgufError(self.problem)
        return self.headers.of(self.path, self.status)

    @property
    def key(self) -> tuple[int, int] | None:
        """Identity of the file, however it is named."""
        return (self.status.st_dev, self.status.st_ino) if self.status else None

    @cached_property
    def is_projector(self) -> bool:
        """Whether this is a readable projector, by its name or its content."""
        if isinstance(self.header, GgufError) or self.header.is_adapter:
            return False
        named_so = PROJECTOR in self.relative.name.lower()
        is_clip = self.header.architecture == "clip"
        return named_so or self.header.general_type == PROJECTOR or is_clip

    @cached_property
    def draft_kind(self) -> int | None:
        """Place among `DRAFTS` of a readable draft model; None for anything else."""
        name = self.relative.name.lower()
        for place, mark in enumerate(DRAFTS):
            if mark in name and PROJECTOR not in name and self.split[1] == 1:
                return None if isinstance(self.header, GgufError) else place
        return None

    @cached_property
    def is_model(self) -> bool:
        """Whether this is a model by its name and content; unreadable ones get reported as such.

        Adapters, control vectors, importance matrices and bare vocabularies are none.
        """
        name = self.relative.name.lower()
        if any(part in name for part in _NOT_MODELS):
            return False
        header = self.header
        if isinstance(header, GgufError):
            return True
        if header.is_adapter or header.general_type in _NOT_MODEL_TYPES:
            return False
        has_weights = header.tensor_count > 0 or header.split_count > 1
        return has_weights and header.architecture not in _NOT_MODEL_ARCHITECTURES


@dataclass(frozen=True)
class Candidate:
    """A model found, with the ids it takes in turn when the first is another model's."""

    id: str
    longer_id: str
    longest_id: str
    names: tuple[str, ...]
    source: ModelSource
    parts: tuple[GgufFile, ...]
    mmproj: GgufFile | None = None
    draft: GgufFile | None = None
    missing: str = ""

    @cached_property
    def invalid(self) -> str:
        """Why it cannot be run; empty if it can."""
        return self.missing or _problem(self.parts)

    def model(self, model_id: str, more_names: Iterable[str] = ()) -> CatalogModel:
        """Give the catalogue's entry under that id."""
        statuses = [part.status for part in self.parts if part.status]
        names = dict.fromkeys((*self.names, *more_names))
        names.pop(model_id, None)
        first = self.parts[0]
        return CatalogModel(
            id=model_id,
            path=first.path,
            source=self.source,
            names=tuple(names)[:_MAX_NAMES],
            parts=tuple(part.path for part in self.parts) if len(self.parts) > 1 else (),
            mmproj=self.mmproj.path if self.mmproj else None,
            draft=self.draft.path if self.draft else None,
            size_bytes=sum(status.st_size for status in statuses),
            modified_at_s=max((status.st_mtime for status in statuses), default=0.0),
            invalid=self.invalid,
            real_path=first.real,
            metadata=_metadata(self.parts, self.mmproj),
        )


@dataclass(frozen=True)
class Place:
    """A folder that is looked at, where it really is, and the real path that links may not leave.

    ``relative`` is its path below the folder searched.
    """

    folder: Path
    relative: PurePosixPath
    real: str
    bounds: str

    def below(self, name: str) -> "Place":
        """Give a folder in this one that is no link."""
        real = os.path.join(self.real, name)  # noqa: PTH118  # four times as fast as Path
        return Place(self.folder / name, self.relative / name, real, self.bounds)


def gguf_file(place: Place, name: str, headers: Headers, *, is_link: bool) -> GgufFile:
    """Look at a directory entry."""
    path = place.folder / name
    headers.looks_into(place.folder)
    # Bytes of a name that are no UTF-8 cannot be part of an id that goes into JSON.
    relative = PurePosixPath(printable(str(place.relative / name)))
    try:
        status = path.stat()
        where = os.path.join(place.real, name)  # noqa: PTH118
        real_path = os.path.realpath(path) if is_link else where
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return GgufFile(path, relative, None, headers, f"cannot be read: {reason}")
    real = Path(real_path) if real_path != str(path) else None
    if not stat.S_ISREG(status.st_mode):
        return GgufFile(path, relative, status, headers, "not a regular file", real)
    if is_link and not Path(real_path).is_relative_to(place.bounds):
        return GgufFile(path, relative, status, headers, LEADS_OUT, real)
    return GgufFile(path, relative, status, headers, "", real)


def printable(name: str) -> str:
    """Give a file name as text that can go into JSON."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "replace")


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


def best_draft(drafts: Iterable[GgufFile], model: GgufFile) -> GgufFile | None:
    """Choose a draft: the best kind, then of the model's own tag, then of the nearest bits."""
    return min(
        drafts,
        key=lambda file: (
            file.draft_kind,
            file.tag != model.tag,
            abs(file.bits - model.bits),
            str(file.relative),
        ),
        default=None,
    )


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
        if isinstance(header, GgufError):
            if len(parts) == 1:
                return header.reason
            kind = "incomplete: " if header.reason.startswith("incomplete: ") else ""
            return f"{kind}{part.relative.name}: {header.reason.removeprefix(kind)}"
        _prefix, number, count = part.split
        if count > 1 and (header.split_no, header.split_count) != (number - 1, count):
            said = f"says it is part {header.split_no + 1} of {header.split_count}"
            return f"{part.relative.name}: {said}"
        if count == 1 and header.split_count > 1:
            return f"part {header.split_no + 1} of {header.split_count} under another name"
    return ""


def _metadata(parts: tuple[GgufFile, ...], mmproj: GgufFile | None) -> Metadata | None:
    headers = [part.header for part in parts if isinstance(part.header, Header)]
    if not headers:
        return None
    metadata = headers[0].metadata
    modalities = ["text"]
    if mmproj is not None and isinstance(mmproj.header, Header):
        sees = mmproj.header.has_vision
        hears = mmproj.header.has_audio
        # Old projectors say neither; they were all for pictures.
        modalities += ["vision"] * (sees or not hears) + ["audio"] * hears
    if len(headers) == 1 and len(modalities) == 1:
        return metadata
    return msgspec.structs.replace(
        metadata,
        parameter_count=sum(header.metadata.parameter_count for header in headers),
        modalities=tuple(modalities),
    )
