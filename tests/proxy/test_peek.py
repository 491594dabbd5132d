import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.form import MAX_FORM_TYPE_BYTES, is_multipart
from llama_router.proxy.peek import (
    MAX_MODEL_NAME_BYTES,
    is_quick_to_peek,
    peek_json,
    peek_multipart,
)

FORM_TYPE = b"multipart/form-data; boundary=b"
PAD = b" " * 20_000


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"a"}', "a", False),
        (b'{"model":"a","stream":true}', "a", True),
        (b'{"stream":true,"model":"a"}', "a", True),
        (b'{"stream":"yes","model":"a"}', "a", False),
        (b'{"stream":1,"model":"a"}', "a", False),
        (b'{"stream":null,"model":"a"}', "a", False),
        (b"{}", None, False),
        (b'{"stream":true}', None, True),
        (b'{"x":{"model":"b"}}', None, False),
        (b'{"x":{"model":"b"},"model":"a"}', "a", False),
        (b'{"x":["model"],"model":"a"}', "a", False),
        (b'{"model":"model"}', "model", False),
        (b'{"model":"\\u0061"}', "a", False),
        (b'{"model":"\xc3\xa4","x":"\\u0041"}', "ä", False),
        (b' \n{ "model" :\t"a" }\r\n', "a", False),
    ],
)
def test_a_model_is_found(body: bytes, model: str | None, stream: bool, pad: bytes) -> None:  # noqa: FBT001
    peek = peek_json(body + pad)
    assert (peek.model, peek.stream) == (model, stream)


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"model"',
        b"7",
        b"{",
        b'{"model":"a"',
        b'{"model":"a"}}',
        b'{"model":"a"} x',
        b"{'model':'a'}",
        b'{"model":"a",}',
        b'{"model":null}',
        b'{"model":7}',
        b'{"model":["a"]}',
        b'{"model":""}',
        b'{"model":"' + b"a" * (MAX_MODEL_NAME_BYTES + 1) + b'"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a", "x":1, "model" : "b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"b","model":"a"}',
        b'{"x":"\\u0041","model":"a","model":"b"}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","x":Infinity}',
        b'{"model":NaN}',
        b"\xef\xbb\xbf" + b'{"model":"a"}',
        '{"model":"a"}'.encode("utf-16"),
        b'{"model":"\xff"}',
        b'{"model":"a","x":"\xed\xa0\x80"}',
        b'{"model":"a","x":"\xc0\xaf"}',
        b'{"model":"\\ud800"}',
        b'{"model":"a\nb"}',
        b'{"model":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"model":"a","x":' + b'{"y":' * 50_000,
        b'{"x":' + b"[" * 2000 + b"]" * 2000 + b',"model":"a","model":"b"}',
    ],
)
def test_what_is_not_clear_is_refused(body: bytes, pad: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        peek_json(body + pad)
    assert caught.value.status == 400


KEYS = st.sampled_from(["model", "stream", "x", 'a"b', "mod", "\u00e4", "model\\", '"model"'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["model"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def written(members: list[tuple[str, object]], style: int) -> bytes:
    """JSON with whatever duplicates ``members`` has."""
    separators = (",", ":") if style % 2 else (" , ", ": ")
    parts = [
        json.dumps(key, ensure_ascii=style < 2)
        + separators[1]
        + json.dumps(value, ensure_ascii=style < 2, separators=separators)
        for key, value in members
    ]
    return ("{" + separators[0].join(parts) + "}").encode("utf-8", "surrogatepass")


@given(st.lists(st.tuples(KEYS, VALUES), max_size=5), st.integers(0, 3), st.booleans())
@example([("model", "a"), ("model", "b")], 0, False)
def test_a_name_that_is_taken_is_the_one_that_any_parser_reads(
    members: list[tuple[str, object]],
    style: int,
    large: bool,  # noqa: FBT001
) -> None:
    body = written(members, style) + (PAD if large else b"")
    try:
        peek = peek_json(body)
    except BadRequestError:
        return
    firsts: list[list[tuple[str, object]]] = []

    def keep(pairs: list[tuple[str, object]]) -> dict[str, object]:
        firsts.append(pairs)
        return dict(pairs)

    last_wins = json.loads(body, object_pairs_hook=keep)
    first_wins = dict(reversed(firsts[-1]))
    assert last_wins.get("model") == first_wins.get("model") == peek.model


@given(st.lists(st.sampled_from([*b'{}[]":,\\ umodelstrx01\n\xc3\xa4\x00']), max_size=40))
def test_no_bytes_do_worse_than_a_refusal(noise: list[int]) -> None:
    for body in (bytes(noise), b'{"model":"a",' + bytes(noise) + b"}"):
        try:
            peek = peek_json(body)
        except BadRequestError:
            continue
        assert json.loads(body).get("model") == peek.model


def test_numbers_of_any_length_do_not_matter() -> None:
    # Passed over unread: what the engine makes of them is its affair.
    assert peek_json(b'{"model":"a","x":' + b"9" * 5000 + b"}").model == "a"


def test_what_is_quick_is_told_by_size_and_by_members() -> None:
    assert is_quick_to_peek(b"{" + b" " * 200_000, None)
    assert not is_quick_to_peek(b"{" + b" " * 300_000, None)
    assert not is_quick_to_peek(b'{"a":1,' * 5000, None)
    assert is_quick_to_peek(b" " * 5000, FORM_TYPE)
    assert not is_quick_to_peek(b" " * 10_000, FORM_TYPE)


# --- forms


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
        name,
        extra,
        value,
    )


def test_a_model_is_found_in_a_form() -> None:
    body = part(b"file", b"\r\n--x" * 9, b'; filename="a"') + part(b"model", b"a/b:Q4")
    peek = peek_multipart(body + part(b"stream", b"true") + b"--b--\r\n", FORM_TYPE)
    assert (peek.model, peek.stream) == ("a/b:Q4", True)


def test_a_form_may_name_no_model() -> None:
    assert peek_multipart(part(b"x", b"y") + b"--b--\r\n", FORM_TYPE).model is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"model=a",
        b"--b--\r\n"[:3],
        part(b"model", b"a"),
        part(b"model", b"a") * 2 + b"--b--\r\n",
        part(b"model", b"a", b'; filename="x"') + b"--b--\r\n",
        part(b"model", b"") + b"--b--\r\n",
        part(b"model", b"\xff") + b"--b--\r\n",
        part(b"model", b"a" * 5000) + b"--b--\r\n",
        part(b"model", b"a" * 1100) + b"--b--\r\n",
        b"--c\r\n\r\n--c--\r\n",
        (
            b"--b\r\nContent-Disposition: form-data; name=x\r\n"
            b"Content-Disposition: form-data; name=model\r\n\r\na\r\n--b--\r\n"
        ),
    ],
)
def test_what_is_no_clear_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        peek_multipart(body, FORM_TYPE)


@pytest.mark.parametrize(
    "form_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"b" * 71,
        b"multipart/form-data; boundary=b;" + b" " * MAX_FORM_TYPE_BYTES,
    ],
)
def test_a_form_without_a_usable_boundary_is_refused(form_type: bytes) -> None:
    with pytest.raises(BadRequestError):
        peek_multipart(part(b"model", b"a") + b"--b--\r\n", form_type)


@given(st.lists(st.sampled_from([b"--b", b"--", b"\r\n", b"a: b", b"model", b"\0", b"\r"])))
def test_no_form_does_worse_than_a_refusal(pieces: list[bytes]) -> None:
    try:
        peek = peek_multipart(b"--b\r\n" + b"".join(pieces), FORM_TYPE)
    except BadRequestError:
        return
    assert peek.model is None


def test_the_type_of_a_form_is_told() -> None:
    assert is_multipart(b"Multipart/Form-Data; boundary=b")
    assert not is_multipart(b"application/json")
    assert not is_multipart(None)


def test_peeks_are_plain_values() -> None:
    assert msgspec.to_builtins(peek_json(b'{"model":"a","ttl":5}')) == {
        "model": "a",
        "stream": False,
        "keep_alive_s": 5.0,
    }


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
def test_how_long_a_model_is_to_stay_is_found_at_the_top_only(pad: bytes) -> None:
    for body, seconds in (
        (b'{"model":"a","keep_alive":"5m"}', 300.0),
        (b'{"keep_alive":-1,"stream":true}', -1.0),
        (b'{"model":"a","ttl":60,"keep_alive":null}', 60.0),
        (b'{"model":"a","x":{"keep_alive":1,"ttl":2}}', None),
    ):
        assert peek_json(body + pad).keep_alive_s == seconds
    with pytest.raises(BadRequestError, match="keep_alive"):
        peek_json(b'{"model":"a","keep_alive":[]}' + pad)
