"""What a request's body says to a router: ``model``, ``stream``, ``keep_alive`` and ``ttl``.

The body is forwarded byte for byte, so what is read here must be what the engine will read. JSON
parsers differ on duplicate keys; a body with two ``model`` keys could be routed as one model and
answered as another, and is refused. So is a top-level key written with escape sequences, which
could be a hidden duplicate.
"""

from typing import TYPE_CHECKING

import msgspec

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.form import Part, Sink, walk_form
from llama_router.proxy.keep_alive import read_keep_alive

if TYPE_CHECKING:
    from typing_extensions import Buffer

# A model's id is a repository, a quantisation, at most a path.
MAX_MODEL_NAME_BYTES = 1024


class Peek(msgspec.Struct, frozen=True):
    """What was found. ``model`` is None when the body names none.

    ``keep_alive_s`` is how long the model is to stay loaded behind this request, negative for
    ever; None when the body does not say.
    """

    model: str | None
    stream: bool
    keep_alive_s: float | None = None


class _PlainPeek(msgspec.Struct):
    model: str | msgspec.UnsetType = msgspec.UNSET
    stream: bool | msgspec.UnsetType = msgspec.UNSET
    keep_alive: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ttl: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_plain = msgspec.json.Decoder(_PlainPeek).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_MODEL_KEY = b'"model"'
# Above this, searching the text costs more than decoding its members.
_PLAIN_MAX_BYTES = 16 * 1024


# Parsing holds the event loop; what takes more than a millisecond is done elsewhere. The time goes
# with the bytes, but with the members of an object and with the lines of a form much more.
_QUICK_JSON_BYTES = 256 * 1024
_QUICK_MEMBER_COUNT = 2048
QUICK_FORM_BYTES = 8 * 1024


def is_quick_to_peek(body: bytes, form_type: bytes | None) -> bool:
    """Tell whether the event loop can wait until ``body`` has been read."""
    size_bytes = len(body)
    if form_type is not None:
        return size_bytes <= QUICK_FORM_BYTES
    return size_bytes <= _PLAIN_MAX_BYTES or (
        size_bytes <= _QUICK_JSON_BYTES and body.count(b":") <= _QUICK_MEMBER_COUNT
    )


def peek_json(body: bytes) -> Peek:
    """Read what is of interest of a JSON body.

    Raises BadRequestError when the body is no JSON object, when ``model`` is no string, is given
    twice, or is unreasonably long, or when ``keep_alive`` means nothing.
    """
    if len(body) <= _PLAIN_MAX_BYTES and body.count(_MODEL_KEY) == 1 and b"\\u" not in body:
        try:
            plain = _decode_plain(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Which of many things is wrong is found out below, at leisure.
            pass
        else:
            if not body.isascii():
                _check_utf8(body)
            if plain.model is not msgspec.UNSET:
                name, is_stream = _checked_name(plain.model), plain.stream is True
                if plain.keep_alive is msgspec.UNSET and plain.ttl is msgspec.UNSET:
                    return Peek(name, is_stream)
                return Peek(name, is_stream, read_keep_alive(plain.keep_alive, plain.ttl))
    return _peek_carefully(body)


def decode_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, of repeated ones the last. Raises BadRequestError."""
    try:
        return _decode_members(body)
    except RecursionError:
        raise BadRequestError("the JSON body is nested too deeply") from None
    except msgspec.ValidationError:
        raise BadRequestError("the JSON body must be an object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the body is not valid JSON: {error}") from None


def _peek_carefully(body: bytes) -> Peek:
    _check_utf8(body)
    members = decode_members(body)
    _refuse_duplicates(body, members)
    model = _value(members, "model")
    stream = _value(members, "stream")
    keep_alive_s = read_keep_alive(members.get("keep_alive"), members.get("ttl"))
    if model is None:
        if "model" in members:
            raise BadRequestError("'model' must be a string, not null", param="model")
        return Peek(None, stream is True, keep_alive_s)
    if not isinstance(model, str):
        raise BadRequestError("'model' must be a string", param="model")
    return Peek(_checked_name(model), stream is True, keep_alive_s)


def _value(members: dict[str, msgspec.Raw], key: str) -> object:
    raw = members.get(key)
    if raw is None:
        return None
    try:
        value: object = _decode_any(raw)
    except (msgspec.DecodeError, RecursionError):
        raise BadRequestError(f"'{key}' has no valid value", param=key) from None
    return value


def _refuse_duplicates(body: bytes, members: dict[str, msgspec.Raw]) -> None:
    # Each value's raw text is known; what is left of the body is its keys, and the values of keys
    # that came again. In compact JSON the lengths alone prove that there is no such thing.
    compact_bytes = 1 + sum(len(raw) + len(key.encode()) + 4 for key, raw in members.items())
    if len(body) == compact_bytes:
        return
    # Counting in what is left finds duplicates at the speed of a byte search.
    values = [bytes(raw) for raw in members.values()]
    keys_named_model = body.count(_MODEL_KEY) - sum(value.count(_MODEL_KEY) for value in values)
    if keys_named_model > 1:
        raise BadRequestError("'model' is given more than once", param="model")
    escapes_in_keys = body.count(b"\\") - sum(value.count(b"\\") for value in values)
    if escapes_in_keys:
        raise BadRequestError("a key of the JSON body is given twice or has escape sequences")


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(f"the body is not valid UTF-8: {error.reason}") from None


def _checked_name(name: str) -> str:
    if not name:
        raise BadRequestError("'model' is empty", param="model")
    if len(name) > MAX_MODEL_NAME_BYTES:
        raise BadRequestError(f"'model' is longer than {MAX_MODEL_NAME_BYTES}", param="model")
    return name


def peek_multipart(body: "Buffer", content_type: bytes) -> Peek:
    """Read the fields ``model`` and ``stream`` of a multipart form.

    Raises BadRequestError when the form is malformed or has ``model`` twice or as a file.
    """
    form = _FormPeek()
    walk_form(body, content_type, form)
    return form.peek()


class _FormPeek:
    """Collects the fields of interest of a form."""

    def __init__(self) -> None:
        self._models: list[bytes] = []
        self._streams: list[bytes] = []
        self._target: list[bytes] | None = None
        self._value = b""

    def peek(self) -> Peek:
        """Return what was found. Raises BadRequestError."""
        stream = bool(self._streams) and self._streams[-1].lower() == b"true"
        if len(self._models) > 1:
            raise BadRequestError("'model' is given more than once", param="model")
        if not self._models:
            return Peek(None, stream)
        try:
            name = self._models[0].decode()
        except UnicodeDecodeError:
            raise BadRequestError("'model' is not valid UTF-8", param="model") from None
        return Peek(_checked_name(name), stream)

    def on_part(self, part: Part) -> Sink | None:
        """Collect what is of interest."""
        self._target = None
        self._value = b""
        if part.name == b"model":
            if part.file_name is not None:
                raise BadRequestError("'model' must be a field, not a file", param="model")
            self._target = self._models
        elif part.name == b"stream":
            self._target = self._streams
        return None if self._target is None else self._on_data

    def _on_data(self, data: bytes) -> None:
        self._value += data
        if len(self._value) > MAX_MODEL_NAME_BYTES * 4:
            raise BadRequestError("a field of the form is too long", param="model")

    def on_part_end(self) -> None:
        """The value is whole."""
        if self._target is not None:
            self._target.append(self._value)
            self._target = None
