"""What the router and its hub process say to each other: one JSON object on each line."""

import msgspec

from llama_router.hub.patience import Patience
from llama_router.hub.progress import Progress, Pulled

LINE_MAX_BYTES = 64 * 1024 * 1024
"""Of an answer; the list of a repository's files can be long."""


class Settings(msgspec.Struct, frozen=True, tag="settings"):
    """The first line, and again when they change.

    The token comes this way as neither arguments nor environments are secret. Limits hold at once,
    all else for what is begun from then on.
    """

    endpoint: str
    token: str
    cache: str
    is_offline: bool = False
    max_parallel_files: int = 4
    bandwidth_bytes_per_s: int = 0
    allowed_hosts: tuple[str, ...] = ()
    patience: Patience = Patience()

    def __repr__(self) -> str:
        return f"Settings({self.endpoint}, {self.cache})"


class Search(msgspec.Struct, frozen=True, tag="search"):
    """Ask for repositories."""

    number: int
    query: str
    limit: int


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A repository with GGUF files. 0 and "" stand for what the hub does not say.

    ``gated``: its owners want their conditions accepted first.
    """

    repo: str
    downloads: int = 0
    likes: int = 0
    modified: str = ""
    gated: bool = False
    task: str = ""
    architecture: str = ""
    parameter_count: int = 0
    context_length: int = 0


class Files(msgspec.Struct, frozen=True, tag="files"):
    """Ask for what a repository holds."""

    number: int
    repo: str


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Remove a model whose files these are."""

    number: int
    paths: tuple[str, ...]


class Header(msgspec.Struct, frozen=True, tag="header"):
    """Ask for the beginning of a file, in a file of its own at ``to``."""

    number: int
    repo: str
    commit: str
    path: str
    to: str
    size_bytes: int


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Begin or resume a download, under a name of the router's."""

    download: str
    repo: str
    tag: str = ""
    file: str = ""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End a download for now; what has come is kept."""

    download: str


class Discard(msgspec.Struct, frozen=True, tag="discard"):
    """Remove what has come of files that are not complete."""

    number: int
    repo: str
    blobs: tuple[str, ...]


Order = Settings | Search | Files | Remove | Header | Discard | Start | Stop


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """What was asked for under ``number``."""

    number: int
    result: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """Why it cannot be had."""

    number: int
    code: str
    message: str


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """A download has come further."""

    download: str
    progress: Progress


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A download is over: with ``pulled``, or stopped as ordered, or for ``code`` and ``message``.

    ``progress`` is how far it came.
    """

    download: str
    progress: Progress
    pulled: Pulled | None = None
    code: str = ""
    message: str = ""


Message = Answer | Failure | Moved | Ended
