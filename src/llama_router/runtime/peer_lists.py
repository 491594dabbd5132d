"""Asking other servers which models they have (``GET /v1/models``). What they say is not trusted.

A module of its own because of its import, which takes its time: only who has peers needs it.
"""

import ssl

import aiohttp
import msgspec

# The largest public lists have some hundred models in as many kilobytes.
MAX_LIST_BYTES = 1024 * 1024
MAX_MODEL_COUNT = 1000
# In those lists a model is some five objects. Above this, reading them would hold the event loop.
MAX_OBJECT_COUNT = 8000
# As the config has it for names.
MAX_NAME_CHARS = 256
_TIMEOUT_S = 30.0
_PIECE_BYTES = 64 * 1024
_OK = 200


class PeerListError(Exception):
    """A peer's list could not be had; the text says why."""


class _Entry(msgspec.Struct):
    id: str
    # What this router's own lists say of models that are not the asked one's.
    kind: object = None


class _List(msgspec.Struct):
    data: list[_Entry]


_decode = msgspec.json.Decoder(_List).decode


def read_list(data: bytes) -> tuple[str, ...]:
    """Return the first names in an answer, without those that are none. Raises PeerListError.

    What a router only has from its own peers is left out: two that are each other's would offer
    each other's models back. Who wants it names it in the config.
    """
    if data.count(b"{") > MAX_OBJECT_COUNT:
        raise PeerListError(f"its list of models has more than {MAX_OBJECT_COUNT} objects")
    try:
        entries = _decode(data).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerListError(f"its list of models makes no sense: {error}") from None
    names = dict.fromkeys(
        entry.id
        for entry in entries[:MAX_MODEL_COUNT]
        if entry.kind != "peer" and 0 < len(entry.id) <= MAX_NAME_CHARS and entry.id.isprintable()
    )
    return tuple(names)


async def ask(base_url: str, api_key: str, context: ssl.SSLContext | None) -> tuple[str, ...]:
    """Return the names of a server's models. Raises PeerListError."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if api_key:
        headers |= {"Authorization": f"Bearer {api_key}", "X-Api-Key": api_key}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Compressed, little could be a lot.
                auto_decompress=False,
            ) as session,
            session.get(
                f"{base_url}/v1/models",
                headers=headers,
                allow_redirects=False,
                ssl=True if context is None else context,
            ) as response,
        ):
            if response.status != _OK:
                raise PeerListError(f"it answered {response.status} to GET /v1/models")
            return read_list(await _read(response))
    except TimeoutError:
        raise PeerListError(f"it did not tell its models within {_TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise PeerListError(f"it could not be asked for its models: {error}") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = b""
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        data += piece
        if len(data) > MAX_LIST_BYTES:
            raise PeerListError(f"its list of models is longer than {MAX_LIST_BYTES} bytes")
    return data
