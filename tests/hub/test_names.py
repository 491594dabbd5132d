import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.names import (
    Reference,
    check_commit,
    folder_name,
    is_blob_name,
    is_safe_path,
    model_id,
    parse_reference,
    split_of,
    tag_of,
)


def test_references() -> None:
    assert parse_reference(" org/a.b-c ") == Reference("org/a.b-c")
    assert parse_reference("org/repo:UD-Q4_K_XL") == Reference("org/repo", "UD-Q4_K_XL")
    assert str(parse_reference("org/repo:Q8_0")) == "org/repo:Q8_0"
    assert str(parse_reference("org/repo", "a/b.gguf")) == "org/repo a/b.gguf"


@pytest.mark.parametrize(
    "text",
    [
        *("", "repo", "a/b/c", "../x", "a/..", "a/b:", "a/b:q 4", "a--b/c", "-a/b", "a/b\n"),
        *("a/.", "ä/b", "a/" + "b" * 300, "https://huggingface.co/a/b", "a/b.git"),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(HubError) as raised:
        parse_reference(text.rstrip("\n") + ("\x00" if text.endswith("\n") else ""))
    assert raised.value.code == "bad_request"


@pytest.mark.parametrize("file", ["../a.gguf", "/a.gguf", "a.txt", "a\\b.gguf"])
def test_what_is_no_file(file: str) -> None:
    with pytest.raises(HubError):
        parse_reference("org/repo", file)


@pytest.mark.parametrize(
    "path", ["a.gguf", "a/b/c.gguf", "with space.gguf", "Ünï.gguf", ".gitattributes", "a..b"]
)
def test_paths_that_may_be_written_to(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/etc/passwd", "../a", "a/../b", "a//b", "a/./b", "a\x00b", "a\nb", "C:/x", "C:x"),
        *("a\\b", "con", "a/NUL.gguf", "com1.x", "lpt9", "a.", "a ", " a", "a?b", "a*b", "a|b"),
        *('"', "<a>", "x" * 300, "ä" * 200, "/".join("a" * 40), "a" * 2000, "\ud800"),
    ],
)
def test_paths_that_may_not(path: str) -> None:
    assert not is_safe_path(path)


def test_hashes_and_commits() -> None:
    assert is_blob_name("a" * 40)
    assert is_blob_name("0" * 64)
    assert not is_blob_name("A" * 40)
    assert not is_blob_name("../" + "a" * 37)
    check_commit("a" * 40)
    with pytest.raises(HubError):
        check_commit("main")


def test_ids_are_those_of_the_catalogue() -> None:
    assert tag_of("m-UD-Q4_K_XL.gguf") == "Q4_K_XL"
    assert tag_of("big/m.Q8_0-00001-of-00002.gguf") == "Q8_0"
    assert tag_of("model.gguf") == ""
    assert split_of("d/m-00002-of-00003.gguf") == ("d/m", 2, 3)
    assert model_id("o/r", "m-q4_0.gguf") == "o/r:Q4_0"
    assert model_id("o/r", "model.gguf") == "o/r/model"
    assert folder_name("o/r") == "models--o--r"
