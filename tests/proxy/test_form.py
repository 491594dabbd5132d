import pytest

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.form import Part, Sink, is_multipart, walk_form

TYPE = b"multipart/form-data; boundary=b"


class Collector:
    """Collects parts, and the content of all but those called "skip"."""

    def __init__(self) -> None:
        self.parts: list[tuple[Part, bytes]] = []
        self._content = b""
        self._part: Part | None = None

    def on_part(self, part: Part) -> Sink | None:
        self._part, self._content = part, b""
        return None if part.name == b"skip" else self._take

    def on_part_end(self) -> None:
        assert self._part is not None
        self.parts.append((self._part, self._content))

    def _take(self, data: bytes) -> None:
        self._content += data


def test_parts_come_in_order_with_their_heads() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x\r\n'
        b'--b\r\nX-Y: z\r\ncontent-disposition: form-data; name="f"; filename="x.wav"\r\n\r\n\r\n'
        b'--b\r\nContent-Disposition: form-data; name="skip"\r\n\r\n1\r\n--b--\r\n'
    )
    found = Collector()
    walk_form(body, TYPE, found)
    assert found.parts == [
        (Part(b"a", None, ()), b"1\r\n--x"),
        (Part(b"f", b"x.wav", ((b"X-Y", b"z"),)), b""),
        (Part(b"skip", None, ()), b""),
    ]


@pytest.mark.parametrize(
    ("body", "form_type"),
    [
        (b"", TYPE),
        (b"--c\r\n", TYPE),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1', TYPE),
        (b"--b--\r\n", b"multipart/form-data"),
        (b"--b--\r\n", b"multipart/form-data; boundary=" + b"x" * 71),
        (b"--b--\r\n", TYPE + b";" + b" " * 1024),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, form_type: bytes) -> None:
    with pytest.raises(BadRequestError):
        walk_form(body, form_type, Collector())


def test_a_form_is_known_by_its_type() -> None:
    assert is_multipart(b"Multipart/Form-Data; boundary=b")
    assert not is_multipart(b"multipart/mixed; boundary=b")
    assert not is_multipart(None)
