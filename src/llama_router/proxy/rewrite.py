"""What an engine gets in place of a request's JSON: a model's name of its own, filters applied.

Only the members in question are touched; every other byte is the client's. So this walks through
the members instead of writing the object anew. It takes no body whose keys could be read in two
ways: what a filter strips must not be there a second time.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.peek import Peek, decode_members, peek_json

# A step of the walk takes about a microsecond, and nothing may hold the event loop for two
# thousand of them. Requests have some ten members.
QUICK_MEMBER_COUNT = 256
_MODEL = "model"
# What of a body the router itself goes by.
_OWN_KEYS = frozenset({"stream", "keep_alive", "ttl"})
_skip_space = re.compile(rb"[ \t\n\r]*").match
_AMBIGUOUS = "a key of the JSON body is given twice or has escape sequences"


class Rewrite(msgspec.Struct, frozen=True):
    """What to change in a body's top-level members.

    ``model`` is the name that the engine is told, None for the client's own. ``strip`` are keys to
    leave out, ``set`` keys with their values as JSON. ``model`` in either of these two is
    overlooked: the router has gone by what the client said.
    """

    model: str | None = None
    strip: tuple[str, ...] = ()
    set: tuple[tuple[str, bytes], ...] = ()

    def added_bytes(self) -> int:
        """Return how much longer a body can get by this, at most."""
        # The name of the model can be written with six bytes for one character.
        model_bytes = 6 * len(self.model.encode()) + len(_MODEL) if self.model is not None else 0
        # Quotes, a colon, a comma; in keys, too, a character can take six bytes.
        return model_bytes + 8 + sum(6 * len(key) * 4 + len(value) + 8 for key, value in self.set)

    def changes(self) -> tuple[frozenset[str], dict[str, bytes]]:
        """Return the keys to leave out, and the values to put in, as JSON."""
        values = {key: value for key, value in self.set if key != _MODEL}
        if self.model is not None:
            values[_MODEL] = msgspec.json.encode(self.model)
        return frozenset(self.strip) - values.keys() - {_MODEL}, values


class TooManyMembersError(Exception):
    """The object has more members than were to be walked through."""


def make_rewrite(
    *,
    model: str | None = None,
    strip: Iterable[str] = (),
    values: Mapping[str, object] | None = None,
) -> Rewrite:
    """Return the Rewrite for values that are not JSON yet."""
    encoded = tuple((key, msgspec.json.encode(value)) for key, value in (values or {}).items())
    return Rewrite(model, tuple(strip), encoded)


def rewrite_json(
    body: bytes, rewrite: Rewrite, peek: Peek, *, max_member_count: int | None = None
) -> tuple[list[bytes], Peek]:
    """Return the pieces of the new body, and what it says to the router.

    ``body`` has been peeked into; ``peek`` is what was found. Its model stays what it is: that is
    the one which the request goes to. Raises BadRequestError when a key is given twice or written
    with escape sequences, or TooManyMembersError above ``max_member_count``.
    """
    members = decode_members(body)
    if max_member_count is not None and len(members) > max_member_count:
        raise TooManyMembersError
    for key in members:
        refuse_lookalike(key)
    strip, values = rewrite.changes()
    pieces = _spliced(body, members, strip, values)
    if _OWN_KEYS.isdisjoint(strip) and _OWN_KEYS.isdisjoint(values):
        return pieces, peek
    found = peek_json(b"".join(pieces))
    return pieces, Peek(peek.model, found.stream, found.keep_alive_s)


def refuse_lookalike(key: str) -> None:
    """Raise BadRequestError for a key that only differs in its case from ``model``.

    Servers in Go take keys without regard to case, and the last of them: a second name for the
    model would go past whoever decides which may be used.
    """
    if len(key) == len(_MODEL) and key != _MODEL and key.lower() == _MODEL:
        raise BadRequestError(f"'{key}' is no key here; it is written 'model'", param="model")


def _spliced(
    body: bytes,
    members: dict[str, msgspec.Raw],
    strip: frozenset[str],
    values: dict[str, bytes],
) -> list[bytes]:
    """Return the pieces of ``body`` with these members left out and these put in."""
    pieces: list[bytes] = []
    at = _behind_space(body, 0)
    _expect(body, at, b"{")
    at = _behind_space(body, at + 1)
    # From where on ``body`` has not been copied; whether any member has.
    copied = 0
    is_first_kept = True
    for index, (key, raw) in enumerate(members.items()):
        before = at
        if index:
            _expect(body, at, b",")
            at += 1
        key_at = _behind_space(body, at)
        value_at, at = _member_end(body, key_at, key, raw)
        if key in strip:
            pieces.append(body[copied:before])
            copied = at
            continue
        if is_first_kept and index:
            # Those before it are gone, and the comma with them.
            copied = key_at
        is_first_kept = False
        if key in values:
            pieces += (body[copied:value_at], values[key])
            copied = value_at + len(raw)
    _expect(body, at, b"}")
    added = [
        b"%b:%b" % (msgspec.json.encode(key), value)
        for key, value in values.items()
        if key not in members
    ]
    if added:
        comma = b"" if is_first_kept else b","
        pieces += (body[copied:at], comma, b",".join(added))
        copied = at
    pieces.append(body[copied:])
    return pieces


def _member_end(body: bytes, at: int, key: str, raw: msgspec.Raw) -> tuple[int, int]:
    """Return where the value of the member at ``at`` begins, and where what follows it stands.

    Raises BadRequestError if the member is not the expected one: then a key came twice.
    """
    text = b'"%b"' % key.encode()
    _expect(body, at, text)
    at = _behind_space(body, at + len(text))
    _expect(body, at, b":")
    value_at = _behind_space(body, at + 1)
    _expect(body, value_at, bytes(raw))
    return value_at, _behind_space(body, value_at + len(raw))


def _behind_space(body: bytes, at: int) -> int:
    space = _skip_space(body, at)
    return space.end() if space is not None else at


def _expect(body: bytes, at: int, text: bytes) -> None:
    if not body.startswith(text, at):
        raise BadRequestError(_AMBIGUOUS)
