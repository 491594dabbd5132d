import email
import email.policy

import pytest

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.peek import Peek, peek_multipart
from llama_router.proxy.rewrite import Rewrite, make_rewrite
from llama_router.proxy.rewrite_form import form_type_of, new_boundary, rewrite_form

TYPE = b"multipart/form-data; boundary=b"


def field(name: bytes, value: bytes, *, extra: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
        name,
        extra,
        value,
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def rewritten(body: bytes, rewrite: Rewrite) -> tuple[bytes, bytes, Peek]:
    """The new form, its type, and what it says."""
    pieces: list[bytes] = []
    boundary = new_boundary()
    peek = rewrite_form(
        body, TYPE, rewrite, peek_multipart(body, TYPE), boundary=boundary, write=pieces.append
    )
    return b"".join(pieces), form_type_of(boundary), peek


def as_another_parser_reads(body: bytes, form_type: bytes) -> list[tuple[str, str | None, bytes]]:
    message = email.message_from_bytes(
        b"content-type: " + form_type + b"\r\n\r\n" + body, policy=email.policy.HTTP
    )
    found = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(name), part.get_filename(), content))
    return found


AUDIO = bytes(range(256)) + b"\r\n--bb\r\n\n--b\n--b\r\r\n"


def test_fields_are_renamed_stripped_and_set() -> None:
    body = form(
        field(b"model", b"whisper"),
        field(b"file", AUDIO, extra=b'; filename="a b.wav"\r\nContent-Type: audio/wav'),
        field(b"temperature", b"1"),
        field(b"language", b"de"),
        field(b"language", b"fr"),
    )
    rewrite = make_rewrite(
        model="large",
        strip=["temperature", "model", "none"],
        values={"language": "en", "n": 2, "ok": True, "gone": None, "model": "other"},
    )
    new, form_type, peek = rewritten(body, rewrite)
    assert peek == Peek("whisper", stream=False)
    assert as_another_parser_reads(new, form_type) == [
        ("model", None, b"large"),
        ("file", "a b.wav", AUDIO),
        ("language", None, b"en"),
        ("n", None, b"2"),
        ("ok", None, b"true"),
    ]
    assert b"Content-Type: audio/wav\r\n" in new


def test_what_the_router_goes_by_is_what_the_engine_gets() -> None:
    body = form(field(b"model", b"m"), field(b"stream", b"true"))
    assert rewritten(body, Rewrite())[2].stream
    assert not rewritten(body, make_rewrite(strip=["stream"]))[2].stream
    assert not rewritten(body, make_rewrite(values={"stream": False}))[2].stream
    assert rewritten(form(field(b"model", b"m")), make_rewrite(values={"stream": True}))[2].stream


def test_no_part_can_be_read_as_one_of_another_name() -> None:
    """Each of these heads is read as another name by some parser."""
    body = form(
        field(b"a", b"1", extra=b'; name="model"').replace(b'name="a"; ', b"name=a; "),
        b"--b\r\nContent-Disposition: form-data; name=\"y\"; name*=UTF-8''model\r\n\r\n3\r\n",
    )
    new, form_type, _ = rewritten(body, make_rewrite(model="large"))
    names = [name for name, _, _ in as_another_parser_reads(new, form_type)]
    assert len(names) == 2
    assert names.count("model") == 1
    assert new.count(b"name=") == 2
    assert b"name*" not in new


def test_quotes_in_names_stay_within_their_quotes() -> None:
    body = form(field(b'a\\"; x=\\"', b"1", extra=b'; filename="q\\".wav"'))
    new, _, _ = rewritten(body, Rewrite())
    assert b'name="a%22; x=%22"; filename="q%22.wav"\r\n' in new


@pytest.mark.parametrize(
    "part",
    [
        b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n",
        b"--b\r\nX: y\r\n\r\n1\r\n",
        field(b"Model", b"x"),
    ],
)
def test_parts_without_a_clear_name_are_refused(part: bytes) -> None:
    with pytest.raises(BadRequestError):
        rewritten(form(field(b"model", b"m"), part), Rewrite())


def test_the_number_of_parts_is_bounded() -> None:
    with pytest.raises(BadRequestError, match="parts"):
        rewritten(form(*[field(b"n%d" % n, b"") for n in range(1025)]), Rewrite())


def test_boundaries_cannot_be_known() -> None:
    assert new_boundary() != new_boundary()
    assert len(new_boundary()) <= 70


def test_a_backslash_in_a_name_does_not_reach_over_its_quotes() -> None:
    body = form(
        field(b"model", b"whisper"),
        b"--b\r\nContent-Disposition: form-data; name=x\\; filename=y\\\r\n\r\n1\r\n",
    )
    new, form_type, _peek = rewritten(body, make_rewrite())
    assert b'name="x%5C"; filename="y%5C"\r\n' in new
    assert [one[0] for one in as_another_parser_reads(new, form_type)] == ["model", "x%5C"]
