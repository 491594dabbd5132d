"""A hub on loopback that does what real ones do on bad days. What it does is in its attributes."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote

from aiohttp import web

COMMIT = "a" * 40
_CHUNK_BYTES = 16 * 1024


@dataclass
class Repo:
    """A repository: its files by path; small ones are git objects, the others large files."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    private: bool = False
    large_from_bytes: int = 1024

    def is_large(self, path: str) -> bool:
        return len(self.files[path]) >= self.large_from_bytes

    def blob(self, path: str) -> str:
        content = self.files[path]
        if self.is_large(path):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(
            b"blob %d\0" % len(content) + content, usedforsecurity=False
        ).hexdigest()


@dataclass
class Faults:
    """What goes wrong. Each number is how often still; each list is used up from its front.

    Places in bodies are for the next body that is as long.
    ``cut_after``: bytes of the body after which the connection breaks, with a reset that overtakes
    some of them if it ``resets``. ``stall_after``: bytes after which nothing
    comes any more. ``bytes_per_s``: 0 is no limit.
    """

    statuses: list[int] = field(default_factory=list)
    retry_after: str = ""
    cut_after: list[int] = field(default_factory=list)
    resets: bool = False
    stall_after: list[int] = field(default_factory=list)
    wrong_bytes: int = 0
    ignore_range: int = 0
    wrong_range: int = 0
    not_satisfiable: int = 0
    too_long: int = 0
    compressed: int = 0
    bytes_per_s: int = 0
    etags: list[str] = field(default_factory=list)
    redirect_to: str = ""
    redirect_circle: bool = False
    api_statuses: list[int] = field(default_factory=list)
    api_body: bytes | None = None
    page_size: int = 1000


class FakeHub:
    """Serves while entered.

    A client may lose what has come and was not read by it yet when its connection is cut; where
    that matters, ``before_cut`` waits for the client.
    ``requests`` has path, Range and Authorization of each file's; ``asked`` is set by the first.
    """

    def __init__(self, repos: dict[str, Repo] | None = None) -> None:
        self.repos = repos or {}
        self.faults = Faults()
        self.token = ""
        self.requests: list[tuple[str, str, str]] = []
        self.counts: Counter[str] = Counter()
        self.sent_bytes = 0
        self.on_chunk: Callable[[int], object] = lambda _sent: None
        self.before_cut: Callable[[], Awaitable[object]] = _at_once
        self.stalled = asyncio.Event()
        self.asked = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/api/models", self._search)
        app.router.add_get("/api/models/{org}/{name}", self._repo)
        app.router.add_get("/api/models/{org}/{name}/tree/{commit}", self._tree)
        app.router.add_get("/{org}/{name}/resolve/{commit}/{path:.+}", self._file)
        app.router.add_get("/circle", self._circle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def caught_up(self) -> None:
        """Return when all is in ``requests`` that was asked before, by whoever has ended since.

        Connections are accepted in their order, and read in that order, too.
        """
        address, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(b"GET /circle HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    # --- the API

    async def _search(self, request: web.Request) -> web.Response:
        self.counts["search"] += 1
        if refusal := self._api_fault():
            return refusal
        assert request.query["filter"] == "gguf"
        words = request.query["search"].lower()
        hits = [
            {
                "id": name,
                "downloads": 1000,
                "likes": 5,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "gated": "manual" if repo.gated else False,
                "gguf": {"architecture": "llama", "total": 8_000_000_000, "context_length": 32768},
            }
            for name, repo in self.repos.items()
            if words in name.lower()
        ]
        return web.json_response(hits[: int(request.query.get("limit", "100"))])

    async def _repo(self, request: web.Request) -> web.Response:
        self.counts["repo"] += 1
        repo = self._found(request)
        if isinstance(repo, web.Response):
            return repo
        return web.json_response({"id": _name(request), "sha": repo.commit, "gated": repo.gated})

    async def _tree(self, request: web.Request) -> web.Response:
        self.counts["tree"] += 1
        repo = self._found(request)
        if isinstance(repo, web.Response):
            return repo
        start = int(request.query.get("cursor", "0"))
        entries = [self._entry(repo, path) for path in sorted(repo.files)]
        page = entries[start : start + self.faults.page_size]
        answer = web.json_response([{"type": "directory", "path": "d", "oid": "d"}, *page])
        if start + self.faults.page_size < len(entries):
            url = f"{request.path}?recursive=true&cursor={start + self.faults.page_size}"
            answer.headers["Link"] = f'<{self.url}{url}>; rel="next"'
        return answer

    def _entry(self, repo: Repo, path: str) -> dict[str, object]:
        size, blob = len(repo.files[path]), repo.blob(path)
        entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": blob}
        if repo.is_large(path):
            entry["oid"] = "b" * 40
            entry["lfs"] = {"oid": blob, "size": size, "pointerSize": 130}
        return entry

    def _found(self, request: web.Request) -> Repo | web.Response:
        if refusal := self._api_fault():
            return refusal
        repo = self.repos.get(_name(request))
        if repo is None or (repo.private and not self._is_let_in(request)):
            return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        return repo

    def _api_fault(self) -> web.Response | None:
        if self.faults.api_statuses:
            status = self.faults.api_statuses.pop(0)
            return web.Response(status=status, headers={"Retry-After": self.faults.retry_after})
        if self.faults.api_body is not None:
            return web.Response(body=self.faults.api_body, content_type="application/json")
        return None

    def _is_let_in(self, request: web.Request) -> bool:
        said = request.headers.get("Authorization", "")
        return bool(self.token) and said == f"Bearer {self.token}"

    # --- files

    async def _circle(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/circle"})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path, faults = request.match_info["path"], self.faults
        said = request.headers
        self.requests.append((path, said.get("Range", ""), said.get("Authorization", "")))
        self.asked.set()
        if said["User-Agent"].startswith("llama-router/"):
            assert said["Accept-Encoding"] == "identity"
        if faults.redirect_circle:
            return web.Response(status=302, headers={"Location": "/circle"})
        if faults.redirect_to:
            location = f"{faults.redirect_to}{quote(request.path)}"
            return web.Response(status=302, headers={"Location": location})
        repo = self.repos[_name(request)]
        if repo.gated and not self._is_let_in(request):
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        if faults.statuses:
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return web.Response(status=faults.statuses.pop(0), headers=headers)
        if path not in repo.files:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        return await self._send(request, repo.files[path], repo.blob(path), repo.commit)

    async def _send(
        self, request: web.Request, content: bytes, blob: str, commit: str
    ) -> web.StreamResponse:
        faults = self.faults
        etag = f'"{faults.etags.pop(0) if faults.etags else blob}"'
        start, is_partial = self._start(request, etag)
        if is_partial and (start >= len(content) or faults.not_satisfiable):
            faults.not_satisfiable = max(0, faults.not_satisfiable - 1)
            total = {"Content-Range": f"bytes */{len(content)}"}
            return web.Response(status=416, headers=total)
        body = content[start:]
        if faults.wrong_bytes:
            faults.wrong_bytes -= 1
            body = bytes(len(body))
        if faults.too_long:
            faults.too_long -= 1
            body += b"more"
        answer = web.StreamResponse(status=206 if is_partial else 200, headers={"ETag": etag})
        # What the official library wants to see.
        answer.headers["X-Repo-Commit"] = commit
        if is_partial:
            shown = start + 1 if faults.wrong_range else start
            faults.wrong_range = max(0, faults.wrong_range - 1)
            answer.headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        if faults.compressed:
            faults.compressed -= 1
            answer.headers["Content-Encoding"] = "gzip"
        answer.content_length = len(body)
        await answer.prepare(request)
        if request.method != "HEAD":
            await self._send_body(request, answer, body)
        return answer

    def _start(self, request: web.Request, etag: str) -> tuple[int, bool]:
        asked = request.headers.get("Range", "")
        if not asked:
            return 0, False
        if self.faults.ignore_range:
            self.faults.ignore_range -= 1
            return 0, False
        if request.headers.get("If-Range", etag) != etag:
            return 0, False
        return int(asked.removeprefix("bytes=").partition("-")[0]), True

    async def _send_body(
        self, request: web.Request, answer: web.StreamResponse, body: bytes
    ) -> None:
        faults = self.faults
        cut, stall = (
            _next_within(places, body) for places in (faults.cut_after, faults.stall_after)
        )
        sent = 0
        while sent < len(body):
            end = min(sent + _CHUNK_BYTES, *(x for x in (cut, stall, len(body)) if x is not None))
            if end > sent:
                await answer.write(body[sent:end])
            self.sent_bytes += end - sent
            sent = end
            self.on_chunk(self.sent_bytes)
            if sent == stall:
                self.stalled.set()
                await asyncio.Event().wait()
            if sent == cut:
                assert request.transport is not None
                await self.before_cut()
                if faults.resets:
                    request.transport.abort()
                else:
                    request.transport.close()
                return
            if faults.bytes_per_s:
                await _pause(_CHUNK_BYTES / faults.bytes_per_s)


async def _at_once() -> None:
    pass


async def _pause(pause_s: float) -> None:
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(pause_s, later.set)
    await later.wait()


def _next_within(places: list[int], body: bytes) -> int | None:
    return places.pop(0) if places and places[0] <= len(body) else None


def _name(request: web.Request) -> str:
    return f"{request.match_info['org']}/{request.match_info['name']}"


def content(size_bytes: int, seed: int = 1) -> bytes:
    """Return bytes that no other seed has."""
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311 - no secret
