"""Asking the hub over HTTP: its token, its redirects, its refusals."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from llama_router import __version__
from llama_router.hub.addresses import Addresses
from llama_router.hub.errors import HubError, PassingError
from llama_router.hub.patience import Patience, delay_s, retry_after_s
from llama_router.hub.resolver import CarefulResolver

_REDIRECTS_MAX_COUNT = 5
_REDIRECTS = (301, 302, 303, 307, 308)
# A tree of a hundred thousand files.
_JSON_MAX_BYTES = 32 * 1024 * 1024
_CONNECTIONS_MAX_COUNT = 64
_READ_BUFFER_BYTES = 1024 * 1024
_PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE, _TOO_MANY = 200, 401, 403, 404, 410, 429
_ERROR_FROM = 400
# How long somebody waits for an answer before the last attempt begins.
_QUESTION_MAX_S = 15.0
_T = TypeVar("_T")


class HubSession:
    """Asks one hub. To be entered."""

    def __init__(
        self, addresses: Addresses, token: str = "", patience: Patience | None = None
    ) -> None:
        self.addresses = addresses
        self.patience = patience or Patience()
        self._token = token
        self._proxies = getproxies()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        hosts = {urlsplit(url).hostname or "" for url in self._proxies.values()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CarefulResolver(self.addresses, hosts),
                limit=_CONNECTIONS_MAX_COUNT,
            ),
            # What is counted and hashed are the bytes of the file.
            headers={
                "Accept-Encoding": "identity",
                "User-Agent": f"llama-router/{__version__}",
            },
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self.patience.connect_s,
                sock_connect=self.patience.connect_s,
                sock_read=self.patience.stall_s,
            ),
        )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, what: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a URL, following redirects; ``what`` is what it is called in messages.

        Gives an answer below 400, or 416. Raises HubError, and PassingError where asking again may
        help.
        """
        with _translated(what):
            for _ in range(_REDIRECTS_MAX_COUNT + 1):
                answer = await self._ask(url, headers or {})
                if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                    break
                location = answer.headers["Location"]
                answer.release()
                url = urljoin(url, location)
                self.addresses.check(url)
            else:
                raise HubError("bad_answer", f"{what}: the hub redirects in circles")
            try:
                self._check_status(answer, url, what)
                yield answer
            finally:
                # Not released: what is left of a body may be many gigabytes.
                answer.close()

    async def get_json(
        self,
        url: str,
        kind: type[_T],
        *,
        what: str,
        on_wait: Callable[[str], object] | None = None,
    ) -> tuple[_T, str]:
        """Return what the hub says, and the URL of the next page, if any. Raises HubError.

        ``on_wait`` is told when it takes waiting. Without it somebody waits for this answer, and is
        soon told that there is none.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._get_json(url, kind, what=what)
            except PassingError as error:
                pause_s = delay_s(self.patience, attempt, error.retry_after_s)
                is_late = on_wait is None and loop.time() + pause_s - began_s > _QUESTION_MAX_S
                if is_late or attempt >= self.patience.attempts_max_count:
                    raise HubError(error.code, error.message) from None
                if on_wait is not None:
                    on_wait(f"{error.message}; again in {pause_s:.0f} s")
                await asyncio.sleep(pause_s)

    async def _get_json(self, url: str, kind: type[_T], *, what: str) -> tuple[_T, str]:
        async with self.get(url, what=what) as answer:
            if answer.status != _OK:
                raise HubError("bad_answer", f"{what}: the hub answers with {answer.status}")
            data = bytearray()
            async for chunk in answer.content.iter_any():
                data += chunk
                if len(data) > _JSON_MAX_BYTES:
                    raise HubError("bad_answer", f"{what}: the hub's answer is too long")
        try:
            following = answer.links["next"]["url"] if "next" in answer.links else ""
            return msgspec.json.decode(data, type=kind), str(following)
        except (msgspec.DecodeError, ValueError, RecursionError):
            host = urlsplit(url).netloc
            message = f"{what}: what answers at {host} is no hub that this router knows"
            raise HubError("bad_answer", message) from None

    async def _ask(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the session was not entered")
        sent = dict(headers)
        if self._token and self.addresses.is_hub(url):
            sent["Authorization"] = f"Bearer {self._token}"
        parts = urlsplit(url)
        proxy = None if proxy_bypass(parts.netloc) else self._proxies.get(parts.scheme)
        return await self._session.get(
            URL(url, encoded=True), headers=sent, allow_redirects=False, proxy=proxy
        )

    def _check_status(self, answer: aiohttp.ClientResponse, url: str, what: str) -> None:
        status = answer.status
        if status < _ERROR_FROM or status == 416:  # noqa: PLR2004 - Range Not Satisfiable
            return
        if status in _PASSING:
            raise PassingError(
                f"{what}: the hub answers with {status}",
                retry_after_s=retry_after_s(answer.headers),
                code="rate_limited" if status == _TOO_MANY else "unreachable",
            )
        if not self.addresses.is_hub(url):
            # A content server's signature has run out: the hub gives a new one.
            raise PassingError(f"{what}: the hub's content server answers with {status}")
        raise self._refusal(answer, what)

    def _refusal(self, answer: aiohttp.ClientResponse, what: str) -> HubError:
        status, kind = answer.status, answer.headers.get("X-Error-Code", "")
        endpoint = self.addresses.endpoint
        if kind == "GatedRepo":
            return HubError(
                "gated",
                f"{what}: its owners let in who has accepted their conditions: do that at "
                f"{endpoint}/{what.partition(' ')[0]}, and set HF_TOKEN (or hub.token) to a token "
                f"of that account ({endpoint}/settings/tokens)",
            )
        if status in (_NOT_FOUND, _GONE):
            return HubError("not_found", f"{what}: the hub has no such thing")
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            remedy = (
                "the token that it got does not open it"
                if self._token
                else "if it is private, set HF_TOKEN (or hub.token) to a token that may read it"
            )
            message = f"{what}: there is no such thing, or it is not for everybody; {remedy}"
            return HubError("unauthorized", message)
        return HubError("bad_answer", f"{what}: the hub answers with {status}")


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Make of a failure of the network what it is called here."""
    try:
        yield
    except TimeoutError:
        raise PassingError(f"{what}: nothing comes from the hub") from None
    except aiohttp.ClientSSLError as error:
        raise HubError("unreachable", f"{what}: {error}") from None
    except aiohttp.ClientPayloadError:
        raise PassingError(f"{what}: the connection has ended early") from None
    except (aiohttp.ClientError, OSError) as error:
        # Not the whole of it where it has the URL: signed addresses are secrets for a while.
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        raise PassingError(f"{what}: the hub cannot be reached: {reason}") from None
