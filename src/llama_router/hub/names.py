"""Names that people type and names that the hub sends; the latter may be hostile."""

import re
from pathlib import PurePosixPath

import msgspec

from llama_router.hub.errors import HubError

GGUF_SUFFIX = ".gguf"
_REPO_MAX_CHARS = 200
_PATH_MAX_CHARS = 1024
# As in a file system's names, which count bytes.
_PART_MAX_BYTES = 255
_PART_MAX_COUNT = 32
# What the hub allows (huggingface_hub, validate_repo_id); "--" stands for the slash in the cache.
_WORD = r"[A-Za-z0-9_.]+(?:-[A-Za-z0-9_.]+)*"
_REPO = re.compile(rf"({_WORD})/({_WORD})")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_REVISION = re.compile(r"[0-9a-f]{40}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Windows refuses or reinterprets these, and a cache may be shared with it.
_BAD_LETTERS = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
# As llama.cpp, common/download.cpp.
_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})", re.IGNORECASE | re.DOTALL)
_FILE_TAG = re.compile(r"[-.]([A-Z0-9_]+)\Z", re.IGNORECASE | re.ASCII)


class Reference(msgspec.Struct, frozen=True):
    """What a person wants: a repository, and the quantisation or one file of it."""

    repo: str
    tag: str = ""
    file: str = ""

    def __str__(self) -> str:
        return (
            self.repo + (f":{self.tag}" if self.tag else "") + (f" {self.file}" * bool(self.file))
        )


def parse_reference(text: str, file: str = "") -> Reference:
    """Read ``user/repo[:quant]``. Raises HubError."""
    repo, colon, tag = text.strip().partition(":")
    check_repo(repo)
    if colon and not _TAG.fullmatch(tag):
        raise HubError("bad_request", f"'{tag}' is no quantisation; write it as {repo}:Q4_K_M")
    if file:
        check_path(file)
        if not file.lower().endswith(GGUF_SUFFIX):
            raise HubError("bad_request", f"'{file}' is no GGUF file")
    return Reference(repo, tag, file)


def check_repo(repo: str) -> None:
    """Raise HubError unless this is the name of a repository."""
    match = _REPO.fullmatch(repo)
    is_named = match is not None and len(repo) <= _REPO_MAX_CHARS
    if match is None or not is_named or not all(map(_is_plain, match.groups())):
        raise HubError("bad_request", f"'{repo}' is no repository; write it as user/repo[:quant]")


def _is_plain(word: str) -> bool:
    return word.strip(".") != "" and ".." not in word and not word.endswith((".", ".git"))


def check_commit(commit: str) -> None:
    """Raise HubError unless this names a commit. It becomes the name of a folder."""
    if not _REVISION.fullmatch(commit):
        raise HubError("bad_answer", "the hub's answer names no commit")


def is_blob_name(name: str) -> bool:
    """Whether this is the SHA-1 of a git object or the SHA-256 of a large file."""
    return bool(_SHA256.fullmatch(name) or _SHA1.fullmatch(name))


def is_sha256(name: str) -> bool:
    """Whether this is the SHA-256 of a large file."""
    return bool(_SHA256.fullmatch(name))


def check_path(path: str) -> None:
    """Raise HubError unless this path stays below its folder on every system."""
    if not is_safe_path(path):
        raise HubError("bad_request", f"{path[:100]!r} is no path of a file in a repository")


def is_safe_path(path: str) -> bool:
    """Whether a path of the hub names a file below its folder, on every system."""
    if not path or len(path) > _PATH_MAX_CHARS or _BAD_LETTERS.search(path):
        return False
    parts = path.split("/")
    if len(parts) > _PART_MAX_COUNT:
        return False
    return all(map(_is_safe_part, parts))


def _is_safe_part(part: str) -> bool:
    if part in ("", ".", "..") or part[-1] in ". " or part[0] == " ":
        return False
    try:
        size_bytes = len(part.encode())
    except UnicodeEncodeError:
        return False
    return size_bytes <= _PART_MAX_BYTES and not _DEVICE.fullmatch(part.partition(".")[0].strip())


def split_of(path: str) -> tuple[str, int, int]:
    """Return path without suffix and part number, part (from 1), count of parts."""
    bare = path[: -len(GGUF_SUFFIX)] if path.lower().endswith(GGUF_SUFFIX) else path
    match = _SPLIT.fullmatch(bare)
    return (match[1], int(match[2]), int(match[3])) if match else (bare, 1, 1)


def tag_of(path: str) -> str:
    """Return the quantisation as llama.cpp reads it from a file's name; empty if none."""
    match = _FILE_TAG.search(split_of(path)[0])
    return match[1].upper() if match else ""


def model_id(repo: str, first_path: str) -> str:
    """Return what the catalogue calls the model whose first file this is."""
    tag = tag_of(first_path)
    return f"{repo}:{tag}" if tag else f"{repo}/{split_of(first_path)[0]}"


def folder_name(repo: str) -> str:
    """Return the name of a repository's folder in the cache."""
    return "models--" + repo.replace("/", "--")


def folder_of(path: str) -> PurePosixPath:
    """Return the folder of a path of the hub."""
    return PurePosixPath(path).parent
