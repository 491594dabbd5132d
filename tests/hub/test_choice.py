import pytest

from llama_router.hub.choice import Contents, RepoFile, choose, contents_of
from llama_router.hub.errors import HubError
from llama_router.hub.names import parse_reference


def contents(*paths: str) -> Contents:
    return contents_of("o/r", "c" * 40, [RepoFile(path, 10, "a" * 64) for path in paths])


def chosen(found: Contents, tag: str = "", file: str = "") -> str:
    return choose(found, parse_reference(f"o/r:{tag}" if tag else "o/r", file)).files[0].path


def test_without_a_tag_it_is_q4_k_m_then_q8_0_then_the_first() -> None:
    assert chosen(contents("m-F16.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf")) == "m-Q4_K_M.gguf"
    assert chosen(contents("m-F16.gguf", "m-Q8_0.gguf")) == "m-Q8_0.gguf"
    assert chosen(contents("m-F16.gguf", "m-Q2_K.gguf")) == "m-F16.gguf"
    # As llama.cpp searches: in the whole path, before a dash or a dot.
    assert chosen(contents("m-F16.gguf", "Q4_K_M-old/m.gguf")) == "Q4_K_M-old/m.gguf"


def test_a_tag_is_searched_for_as_llama_cpp_does() -> None:
    found = contents("m-BF16.gguf", "m-F16.gguf", "m-UD-Q4_K_XL.gguf", "m-Q4_K_M.gguf")
    assert chosen(found, "q4_k_m") == "m-Q4_K_M.gguf"
    assert chosen(found, "UD-Q4_K_XL") == "m-UD-Q4_K_XL.gguf"
    assert chosen(found, "Q4_K_XL") == "m-UD-Q4_K_XL.gguf"
    assert chosen(found, "F16") == "m-F16.gguf"
    with pytest.raises(HubError, match=r"has no Q3_K; there are: BF16, F16, Q4_K_XL"):
        chosen(found, "Q3_K")


def test_a_file_is_taken_by_its_path_and_a_part_stands_for_all() -> None:
    found = contents("a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf", "mmproj-F16.gguf")
    variant = choose(found, parse_reference("o/r", "a/m-00002-of-00002.gguf"))
    assert [file.path for file in variant.files] == [
        "a/m-00001-of-00002.gguf",
        "a/m-00002-of-00002.gguf",
    ]
    assert variant.size_bytes == 20
    assert chosen(found, file="mmproj-F16.gguf") == "mmproj-F16.gguf"
    with pytest.raises(HubError, match="has no file"):
        chosen(found, file="other.gguf")


def test_what_is_no_model_is_kept_apart() -> None:
    found = contents(
        "m-Q8_0.gguf", "mmproj-F16.gguf", "mtp-m-Q8_0.gguf", "m.imatrix.gguf", "README.md"
    )
    assert [variant.id for variant in found.variants] == ["o/r:Q8_0"]
    assert [file.path for file in found.projectors] == ["mmproj-F16.gguf"]
    assert [file.path for file in found.drafts] == ["mtp-m-Q8_0.gguf"]
    with pytest.raises(HubError, match="no model in GGUF"):
        chosen(contents("README.md"))


def test_the_projector_is_the_nearest() -> None:
    found = contents(
        *("a/m-Q8_0.gguf", "m-F32.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"),
        *("a/mmproj-BF16.gguf", "b/mmproj-Q8_0.gguf"),
    )
    nearest = {one.tag: one.projector.path for one in found.variants if one.projector}
    assert nearest == {"Q8_0": "a/mmproj-BF16.gguf", "F32": "mmproj-F32.gguf"}
    assert contents("a/m.gguf", "b/mmproj.gguf").variants[0].projector is None


def test_a_model_with_a_part_missing_cannot_be_chosen() -> None:
    found = contents("m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf")
    with pytest.raises(HubError, match="of 3 parts of m-Q8_0 are missing: 2"):
        chosen(found)
    assert "more than the possible" in contents("m-00001-of-99999.gguf").variants[0].missing
