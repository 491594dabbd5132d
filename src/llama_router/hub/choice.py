"""Which files of a repository are one model, and which one a name means.

As llama.cpp has it (common/download.cpp), but that a file whose quantisation is exactly the one
asked for comes before those in whose path it merely occurs: F16 is no BF16.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from llama_router.hub.errors import HubError
from llama_router.hub.names import GGUF_SUFFIX, Reference, folder_of, model_id, split_of, tag_of

_PROJECTOR = "mmproj"
_DRAFTS = ("mtp-", "eagle3-", "dflash-", "dspark-")
_NO_MODEL = "imatrix"
_DEFAULT_TAGS = ("Q4_K_M", "Q8_0")
_NAMED_COUNT = 12
# The largest models have about 100.
PARTS_MAX_COUNT = 1000


class RepoFile(msgspec.Struct, frozen=True):
    """A file of a repository. ``blob`` is its name in the cache, and the hash of its content."""

    path: str
    size_bytes: int
    blob: str


class Variant(msgspec.Struct, frozen=True):
    """One model of a repository: a quantisation, of one file or of several parts.

    ``id`` is how the catalogue will call it. ``missing``: what the repository lacks of it.
    ``projector`` is the file that belongs to it, if there is one.
    """

    id: str
    tag: str
    files: tuple[RepoFile, ...]
    size_bytes: int
    is_default: bool = False
    missing: str = ""
    projector: RepoFile | None = None

    @property
    def all_files(self) -> tuple[RepoFile, ...]:
        """Its parts, and its projector."""
        return self.files if self.projector is None else (*self.files, self.projector)


class Contents(msgspec.Struct, frozen=True):
    """What a repository holds for llama.cpp."""

    repo: str
    commit: str
    variants: tuple[Variant, ...]
    projectors: tuple[RepoFile, ...]
    drafts: tuple[RepoFile, ...]


def contents_of(repo: str, commit: str, files: Sequence[RepoFile]) -> Contents:
    """Sort a repository's files."""
    ggufs = [file for file in files if file.path.lower().endswith(GGUF_SUFFIX)]
    projectors = tuple(file for file in ggufs if _PROJECTOR in file.path.lower())
    drafts = tuple(file for file in ggufs if file not in projectors and _is_draft(file.path))
    groups: dict[tuple[str, int], list[RepoFile]] = {}
    for file in ggufs:
        if file in projectors or file in drafts or _NO_MODEL in file.path.lower():
            continue
        prefix, _part, count = split_of(file.path)
        groups.setdefault((prefix, count), []).append(file)
    parts = [_in_order(group, count) for (_prefix, count), group in groups.items()]
    default = _default([group[0] for group, _missing in parts])
    variants = tuple(
        _variant(repo, group, missing, projectors, is_default=group[0] is default)
        for group, missing in parts
    )
    return Contents(repo, commit, variants, projectors, drafts)


def choose(contents: Contents, reference: Reference) -> Variant:
    """Return the model that a reference means. Raises HubError."""
    found = _by_file(contents, reference.file) if reference.file else _by_tag(contents, reference)
    if found.missing:
        raise HubError("not_found", f"{contents.repo} is not complete: {found.missing}")
    return found


def is_named(variant: Variant, tag: str) -> bool:
    """Whether a quantisation is called so, and not only something that ends so: BF16 is no F16."""
    named = re.compile(rf"(?<![A-Z0-9]){re.escape(tag)}[.-]", re.IGNORECASE)
    return variant.tag == tag.upper() or bool(named.search(variant.files[0].path))


def _by_file(contents: Contents, path: str) -> Variant:
    for variant in contents.variants:
        if any(file.path == path for file in variant.files):
            return variant
    for file in (*contents.projectors, *contents.drafts):
        if file.path == path:
            name = model_id(contents.repo, path)
            return Variant(name, tag_of(path), (file,), file.size_bytes)
    raise _none(contents, f"{contents.repo} has no file '{path}'")


def _by_tag(contents: Contents, reference: Reference) -> Variant:
    if not contents.variants:
        raise HubError("not_found", f"{contents.repo} has no model in GGUF files")
    if not reference.tag:
        return next(variant for variant in contents.variants if variant.is_default)
    for variant in contents.variants:
        if variant.tag == reference.tag.upper():
            return variant
    occurs = re.compile(re.escape(reference.tag) + "[.-]", re.IGNORECASE)
    for variant in contents.variants:
        if occurs.search(variant.files[0].path):
            return variant
    raise _none(contents, f"{contents.repo} has no {reference.tag}")


def _none(contents: Contents, message: str) -> HubError:
    names = [variant.tag or variant.files[0].path for variant in contents.variants]
    if names:
        more = ", …" if len(names) > _NAMED_COUNT else ""
        message = f"{message}; there are: {', '.join(names[:_NAMED_COUNT])}{more}"
    return HubError("not_found", message)


def _is_draft(path: str) -> bool:
    return any(mark in path.rpartition("/")[2].lower() for mark in _DRAFTS)


def _in_order(group: list[RepoFile], count: int) -> tuple[tuple[RepoFile, ...], str]:
    ordered = tuple(sorted(group, key=lambda file: split_of(file.path)[1]))
    numbers = [split_of(file.path)[1] for file in ordered]
    if count > PARTS_MAX_COUNT:
        return ordered, f"{count} parts are more than the possible {PARTS_MAX_COUNT}"
    absent = sorted(set(range(1, count + 1)) - set(numbers))
    if absent:
        named = ", ".join(map(str, absent[:_NAMED_COUNT]))
        return ordered, f"of {count} parts of {split_of(ordered[0].path)[0]} are missing: {named}"
    return ordered, "" if len(numbers) == count else "a part is there twice"


def _default(firsts: Sequence[RepoFile]) -> RepoFile | None:
    for tag in _DEFAULT_TAGS:
        occurs = re.compile(tag + "[.-]", re.IGNORECASE)
        for first in firsts:
            if occurs.search(first.path):
                return first
    return firsts[0] if firsts else None


def _variant(
    repo: str,
    files: tuple[RepoFile, ...],
    missing: str,
    projectors: Iterable[RepoFile],
    *,
    is_default: bool,
) -> Variant:
    first = files[0].path
    return Variant(
        id=model_id(repo, first),
        tag=tag_of(first),
        files=files,
        size_bytes=sum(file.size_bytes for file in files),
        is_default=is_default,
        missing=missing,
        projector=_nearest(projectors, first),
    )


def _nearest(projectors: Iterable[RepoFile], path: str) -> RepoFile | None:
    """Choose the projector in the deepest folder around the model, then of the nearest type."""
    folder = folder_of(path)
    around = [file for file in projectors if folder.is_relative_to(folder_of(file.path))]
    return min(
        around,
        key=lambda file: (
            -len(folder_of(file.path).parts),
            abs(_bits(file.path) - _bits(path)),
            file.path,
        ),
        default=None,
    )


def _bits(path: str) -> int:
    digits = re.search(r"[0-9]{1,3}", tag_of(path))
    return int(digits[0]) if digits else 0
