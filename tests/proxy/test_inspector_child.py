import json
import tempfile
from typing import IO

import pytest

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.inspector_child import Change, change_body, change_into_file, peek_into
from llama_router.proxy.peek import Peek
from llama_router.proxy.rewrite import make_rewrite

FORM_TYPE = b"multipart/form-data; boundary=b"
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--b--\r\n'
JSON = b'{"model":"a","x":1}'
REWRITE = make_rewrite(model="inner", strip=["x"])


def stored(data: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.seek(0)
    return file


def change(limit_bytes: int = 1000) -> Change:
    return Change(REWRITE, Peek("a", stream=False), limit_bytes, b"new")


@pytest.mark.parametrize("form_type", [b"", FORM_TYPE])
def test_what_is_in_a_file_is_read_and_changed_as_what_is_in_memory(form_type: bytes) -> None:
    data = FORM if form_type else JSON
    pieces: list[bytes] = []
    assert peek_into(data, form_type) == Peek("a", stream=False)
    peek, size_bytes = change_body(data, form_type, change(), pieces.append)
    assert peek == Peek("a", stream=False)
    assert size_bytes == sum(map(len, pieces))
    if form_type:
        new_type = b"multipart/form-data; boundary=new"
        assert peek_into(b"".join(pieces), new_type) == Peek("inner", stream=False)
    else:
        assert json.loads(b"".join(pieces)) == {"model": "inner"}
    with stored(data) as source, stored(b"") as target:
        assert peek_into(source, form_type) == peek
        assert change_into_file(source, form_type, change(), target) == (peek, size_bytes)
        assert target.tell() == source.tell() == 0
        assert target.read() == b"".join(pieces)


def test_an_empty_file_is_no_form() -> None:
    with stored(b"") as source, pytest.raises(BadRequestError):
        peek_into(source, FORM_TYPE)


@pytest.mark.parametrize("form_type", [b"", FORM_TYPE])
def test_more_than_was_reserved_is_not_written(form_type: bytes) -> None:
    data = FORM if form_type else JSON
    with stored(data) as source, stored(b"") as target:
        with pytest.raises(BadRequestError, match="too large"):
            change_into_file(source, form_type, change(limit_bytes=8), target)
        target.seek(0)
        assert len(target.read()) <= 8
