"""Which models of a repository the cache has, whole. Asks nobody."""

from pathlib import Path

from llama_router.hub.choice import Contents, RepoFile, Variant, choose, contents_of, is_named
from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder
from llama_router.hub.names import Reference, check_repo, is_safe_path
from llama_router.hub.progress import Pulled

_SNAPSHOT_MAX_FILES = 10_000


def find_cached(cache: Path, reference: Reference) -> Pulled | None:
    """Return the model that a reference means if it is in the cache, whole. Raises HubError.

    It is looked for in the commit that is checked out. In a thread.
    """
    found = _cached(cache, reference.repo)
    try:
        variant = choose(found, reference)
    except HubError:
        return None
    if reference.tag and not is_named(variant, reference.tag):
        # The hub may have what is really called so.
        return None
    return _pulled(cache, found, variant)


def find_cached_id(cache: Path, model: str) -> tuple[Pulled | None, tuple[str, ...]]:
    """Return the model of exactly this id, complete or not, and the ids of all of its repository.

    Raises HubError. In a thread.
    """
    found = _cached(cache, "/".join(model.partition(":")[0].split("/")[:2]))
    exact = next((one for one in found.variants if one.id == model), None)
    ids = tuple(one.id for one in found.variants)
    return (None if exact is None else _pulled(cache, found, exact)), ids


def _cached(cache: Path, repo: str) -> Contents:
    """Return what the cache has of a repository."""
    check_repo(repo)
    folder = RepoFolder(cache, repo)
    commit = folder.main_commit()
    present = sorted(_files_of(folder.snapshots / commit)) if commit else []
    files = [RepoFile(path, size_bytes, "") for path, size_bytes in present]
    return contents_of(repo, commit, files)


def _pulled(cache: Path, found: Contents, variant: Variant) -> Pulled:
    snapshot = RepoFolder(cache, found.repo).snapshots / found.commit
    size_bytes = sum(file.size_bytes for file in variant.all_files)
    paths = tuple(str(snapshot.joinpath(*file.path.split("/"))) for file in variant.files)
    return Pulled(variant.id, paths, size_bytes, found.commit)


def _files_of(snapshot: Path) -> list[tuple[str, int]]:
    found = []
    for count, path in enumerate(snapshot.rglob("*")):
        if count > _SNAPSHOT_MAX_FILES:
            break
        try:
            if path.is_file():
                name = path.relative_to(snapshot).as_posix()
                found += [(name, path.stat().st_size)] * is_safe_path(name)
        except OSError:
            continue
    return found
