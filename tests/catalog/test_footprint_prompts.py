import pytest

from llama_router.catalog.footprint_arguments import parse_arguments
from llama_router.catalog.footprint_buffers import context_of
from llama_router.catalog.footprint_prompts import KeptPrompts, kept_prompts
from llama_router.catalog.gguf_reader import GgufInfo
from tests.support.headers import header

MIB = 2**20
GIB = 2**30
CTX_TOKENS = 8192

DENSE = header(layers=8)
DENSE_CONTEXT_BYTES = CTX_TOKENS * 8 * 2 * 1024 * 2
WINDOWED = header("gemma3", layers=6, window=1024)
CHECKPOINT_BYTES = 1024 * 5 * 2 * 1024 * 2


def kept(info: GgufInfo, arguments: str = "", draft: GgufInfo | None = None) -> KeptPrompts:
    parsed = parse_arguments(["-np", "2", *arguments.split()])
    return kept_prompts(info, draft, parsed, context_of(info, parsed, CTX_TOKENS))


def test_of_the_engines_own_limit_one_context_is_counted() -> None:
    assert kept(DENSE) == KeptPrompts(0, DENSE_CONTEXT_BYTES, 8 * GIB)


def test_a_draft_models_context_is_kept_with_the_models() -> None:
    draft = header(layers=2)

    assert kept(DENSE, draft=draft).counted == DENSE_CONTEXT_BYTES * 10 // 8
    assert kept(DENSE, "-ctkd q8_0 -ctvd q8_0", draft).counted < DENSE_CONTEXT_BYTES * 10 // 8


def test_no_more_is_counted_than_can_be_kept() -> None:
    large = header(layers=64, heads=64, kv_heads=64, embedding_length=8192)

    assert kept(large) == KeptPrompts(0, 8 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("limit_mib", "counted"), [("0", 0), ("100", 100 * MIB), ("16384", 16 * GIB)]
)
def test_a_limit_that_is_stated_is_counted_in_full(limit_mib: str, counted: int) -> None:
    assert kept(DENSE, f"-cram {limit_mib}") == KeptPrompts(0, counted, counted)


def test_without_a_limit_in_bytes_as_many_tokens_are_kept_as_the_context_has() -> None:
    assert kept(DENSE, "-cram -1") == KeptPrompts(0, DENSE_CONTEXT_BYTES, DENSE_CONTEXT_BYTES)


def test_checkpoints_beyond_those_of_one_prompt_come_with_use() -> None:
    full_layer, window_layer = CTX_TOKENS * 2048 * 2, 2 * 1536 * 2048 * 2
    of_context = full_layer + 5 * window_layer
    further = (2 * 32 - 2) * CHECKPOINT_BYTES

    assert kept(WINDOWED) == KeptPrompts(2 * CHECKPOINT_BYTES, of_context, 8 * GIB + further)
    assert kept(WINDOWED, "-cram 0").counted == of_context
    assert kept(WINDOWED, "-cram 0 -ctxcp 1") == KeptPrompts(
        CHECKPOINT_BYTES, CHECKPOINT_BYTES, CHECKPOINT_BYTES
    )
    assert kept(WINDOWED, "-cram 100 -ctxcp 8").counted == 100 * MIB + 14 * CHECKPOINT_BYTES
    assert kept(WINDOWED, "-cram 0 -ctxcp 0") == KeptPrompts()


def test_nothing_is_kept_of_texts_to_embed() -> None:
    assert kept(WINDOWED, "--embeddings") == KeptPrompts()
