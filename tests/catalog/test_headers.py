from pathlib import Path

import pytest

from llama_router.catalog.gguf_format import ValueType
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.gguf_writer import Array, Tensor, Value, write_gguf
from llama_router.catalog.headers import FreshHeaders, Header, read_header
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_broken import Breakage, write_broken
from llama_router.catalog.tiny_projector import write_projector


def header_of(path: Path, metadata: dict[str, Value]) -> Header:
    write_gguf(path, {"general.architecture": "llama"} | metadata, [Tensor("t", (32, 4))])
    header = read_header(path)
    assert isinstance(header, Header)
    return header


def test_a_models_header_says_what_people_want_to_know(tmp_path: Path) -> None:
    metadata = header_of(
        tmp_path / "m.gguf",
        {
            "general.name": "Sea Story",
            "general.file_type": 15,
            "general.license": "apache-2.0",
            "general.tags": Array(ValueType.STRING, ["chat", "sea"]),
            "general.languages": Array(ValueType.STRING, ["en"]),
            "general.size_label": "7B",
            "general.base_model.0.name": "Sea",
            "general.base_model.0.repo_url": "https://huggingface.co/org/sea",
            "general.base_model.1.name": "Sky",
            "llama.context_length": 4096,
            "llama.embedding_length": 64,
            "llama.block_count": 3,
            "llama.expert_count": 8,
            "tokenizer.ggml.tokens": Array(ValueType.STRING, ["a", "b"]),
            "tokenizer.chat_template": "{{ messages }}",
        },
    ).metadata

    assert (metadata.architecture, metadata.name) == ("llama", "Sea Story")
    assert (metadata.quantisation, metadata.size_label) == ("Q4_K_M", "7B")
    assert (metadata.context_length, metadata.embedding_length) == (4096, 64)
    assert (metadata.layers, metadata.expert_count, metadata.vocabulary) == (3, 8, 2)
    assert metadata.parameter_count == 128
    assert (metadata.license, metadata.tags) == ("apache-2.0", ("chat", "sea"))
    assert (metadata.base_models, metadata.languages) == (("org/sea", "Sky"), ("en",))
    assert metadata.has_chat_template
    assert metadata.modalities == ("text",)


def test_texts_of_strangers_are_short_and_without_control_characters(tmp_path: Path) -> None:
    hostile = "\x1b[31mred\x07\u202e\n\nline " + "x" * 5000
    metadata = header_of(
        tmp_path / "m.gguf",
        {
            "general.name": hostile,
            "general.license": 7,
            "general.tags": Array(ValueType.STRING, [hostile] * 1000),
        },
    ).metadata

    assert metadata.name.startswith("[31mred line xxx")
    assert metadata.name.isprintable()
    assert len(metadata.name) == 200
    assert len(metadata.tags) == 32
    assert metadata.license == ""


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"llama.pooling_type": 0}, "neither"),
        ({"llama.pooling_type": 1}, "embedding"),
        ({"llama.pooling_type": 1, "tokenizer.chat_template": "x"}, "neither"),
        ({"llama.pooling_type": 3, "tokenizer.chat_template": "x"}, "embedding"),
        ({"llama.pooling_type": 4}, "reranker"),
        ({"general.architecture": "nomic-bert"}, "embedding"),
    ],
)
def test_embedders_and_rerankers_are_told_by_their_pooling(
    tmp_path: Path, keys: dict[str, Value], kind: str
) -> None:
    metadata = header_of(tmp_path / "m.gguf", keys).metadata

    assert metadata.embedding is (kind == "embedding")
    assert metadata.reranker is (kind == "reranker")


def test_projectors_and_adapters_say_so(tmp_path: Path) -> None:
    projector = read_header(write_projector(tmp_path / "p.gguf"))
    adapter = header_of(tmp_path / "a.gguf", {"adapter.type": "lora"})

    assert isinstance(projector, Header)
    assert (projector.has_vision, projector.has_audio) == (True, False)
    assert adapter.is_adapter


def test_broken_file_gives_the_reason_as_a_value(tmp_path: Path) -> None:
    path = write_broken(tmp_path / "b.gguf", Breakage.BAD_MAGIC)

    found = FreshHeaders().of(path, path.stat())

    assert isinstance(found, GgufError)
    assert found.reason == "not a GGUF file"


def test_claimed_number_of_weights_is_bounded(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", "one two three", name="m")
    header = read_header(path)
    assert isinstance(header, Header)

    assert 0 < header.metadata.parameter_count < 1_000_000
