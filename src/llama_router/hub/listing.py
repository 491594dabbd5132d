"""What the hub has: repositories that match some words, and the files of one."""

from collections.abc import Callable
from urllib.parse import quote, urlencode, urljoin

import msgspec

from llama_router.hub.choice import Contents, RepoFile, contents_of
from llama_router.hub.errors import HubError, PassingError
from llama_router.hub.names import check_commit, check_repo, is_blob_name, is_safe_path
from llama_router.hub.protocol import SearchHit
from llama_router.hub.session import HubSession

SEARCH_MAX_COUNT = 100
_QUERY_MAX_CHARS = 200
_PAGES_MAX_COUNT = 100
_FILES_MAX_COUNT = 100_000
_EXPANDED = ("gguf", "downloads", "likes", "lastModified", "gated", "private", "pipeline_tag")
_NAME_MAX_CHARS = 200


class _Gguf(msgspec.Struct):
    architecture: object = ""
    total: object = 0
    context_length: object = 0


class _Hit(msgspec.Struct, rename={"modified": "lastModified"}):
    id: str
    downloads: object = 0
    likes: object = 0
    modified: object = ""
    gated: object = False
    pipeline_tag: object = ""
    gguf: _Gguf | None = None


class _Repo(msgspec.Struct):
    sha: str


class _Lfs(msgspec.Struct):
    oid: str
    size: int


class _Entry(msgspec.Struct):
    type: str
    path: str
    oid: str = ""
    size: int = 0
    lfs: _Lfs | None = None


async def search(session: HubSession, query: str, limit: int = 20) -> list[SearchHit]:
    """Return repositories with GGUF files, the most downloaded first. Raises HubError."""
    asked = [
        ("search", query[:_QUERY_MAX_CHARS]),
        ("filter", "gguf"),
        ("sort", "downloads"),
        ("limit", str(max(1, min(limit, SEARCH_MAX_COUNT)))),
        *(("expand", field) for field in _EXPANDED),
    ]
    url = f"{session.addresses.endpoint}/api/models?{urlencode(asked)}"
    hits, _next = await session.get_json(url, list[_Hit], what="search")
    return [_shown(hit) for hit in hits[:limit] if _is_repo(hit.id)]


async def contents(
    session: HubSession, repo: str, on_wait: Callable[[str], object] | None = None
) -> tuple[Contents, dict[str, RepoFile]]:
    """Return what a repository holds, and all its files by path. Raises HubError.

    ``on_wait``: see HubSession.get_json.
    """
    check_repo(repo)
    base = f"{session.addresses.endpoint}/api/models/{repo}"
    head, _next = await session.get_json(base, _Repo, what=repo, on_wait=on_wait)
    check_commit(head.sha)
    files: dict[str, RepoFile] = {}
    url = f"{base}/tree/{head.sha}?recursive=true"
    for _ in range(_PAGES_MAX_COUNT):
        entries, following = await session.get_json(url, list[_Entry], what=repo, on_wait=on_wait)
        files.update((file.path, file) for file in map(_file, entries) if file is not None)
        if len(files) > _FILES_MAX_COUNT:
            raise HubError("bad_answer", f"{repo} has more than {_FILES_MAX_COUNT} files")
        if not following:
            ordered = [files[path] for path in sorted(files)]
            return contents_of(repo, head.sha, ordered), files
        url = urljoin(url, following)
        session.addresses.check(url)
    raise HubError("bad_answer", f"the list of {repo}'s files does not end")


def file_url(session: HubSession, repo: str, commit: str, path: str) -> str:
    """Return where a file is."""
    return f"{session.addresses.endpoint}/{repo}/resolve/{commit}/{quote(path)}"


def _file(entry: _Entry) -> RepoFile | None:
    """Make a file of what the hub says; None for what is no file, or must not become one here."""
    if entry.type != "file" or not is_safe_path(entry.path):
        return None
    large = entry.lfs
    blob, size_bytes = (large.oid, large.size) if large is not None else (entry.oid, entry.size)
    blob = blob.removeprefix("sha256:")
    if not is_blob_name(blob) or size_bytes < 0:
        return None
    return RepoFile(entry.path, size_bytes, blob)


def _is_repo(name: str) -> bool:
    try:
        check_repo(name)
    except HubError:
        return False
    return True


def _shown(hit: _Hit) -> SearchHit:
    gguf = hit.gguf or _Gguf()
    return SearchHit(
        repo=hit.id,
        downloads=_count(hit.downloads),
        likes=_count(hit.likes),
        modified=_text(hit.modified),
        gated=bool(hit.gated),
        task=_text(hit.pipeline_tag),
        architecture=_text(gguf.architecture),
        parameter_count=_count(gguf.total),
        context_length=_count(gguf.context_length),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def _text(value: object) -> str:
    return value[:_NAME_MAX_CHARS] if isinstance(value, str) else ""


async def beginning(session: HubSession, url: str, size_bytes: int, *, what: str) -> bytes:
    """Return the first bytes of a file, for its header. Raises HubError."""
    try:
        asked = {"Range": f"bytes=0-{size_bytes - 1}"}
        async with session.get(url, asked, what=what) as answer:
            data = bytearray()
            while len(data) < size_bytes and (chunk := await answer.content.readany()):
                data += chunk
            return bytes(data[:size_bytes])
    except PassingError as error:
        raise HubError(error.code, error.message) from None
