import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_router.dialects.usage import token_counts

# As llama-server b11434 writes them.
USAGE = (
    b'"usage":{"completion_tokens":16,"prompt_tokens":21,"total_tokens":37,'
    b'"prompt_tokens_details":{"cached_tokens":7}}'
)
ANTHROPIC = (
    b'"usage":{"cache_creation_input_tokens":1,"cache_read_input_tokens":5,"input_tokens":3,'
    b'"output_tokens":4}'
)
TIMINGS = (
    b'"timings":{"cache_n":7,"prompt_n":14,"prompt_ms":3.1,"prompt_per_token_ms":0.22,'
    b'"prompt_per_second":4504.5,"predicted_n":16,"predicted_ms":9.5,"predicted_per_second":1.0}'
)


@pytest.mark.parametrize(
    ("tail", "counts"),
    [
        (b'{"object":"chat.completion",' + USAGE + b',"id":"x",' + TIMINGS + b"}", (21, 16)),
        (b'data: {"choices":[],' + TIMINGS + b"}\n\ndata: [DONE]\n\n", (21, 16)),
        (b'data: {"usage":null}\n\ndata: {' + TIMINGS + b"}\n\n", (21, 16)),
        (b'data: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n", (21, 16)),
        (b'"usage": {"prompt_tokens": 5, "total_tokens": 5}', (5, None)),
        (b'"usage":{"input_tokens":3,"output_tokens":4}', (3, 4)),
        (ANTHROPIC, (9, 4)),
        (b'{"type":"message_delta","usage":{"output_tokens":4}}', (None, 4)),
        (b'"timings":{"prompt_n":14,"predicted_n":16}', (14, 16)),
        # The last one holds.
        (b'"usage":{"prompt_tokens":1,"completion_tokens":1} ' + USAGE, (21, 16)),
        (b"", (None, None)),
        (b"x" * 9000, (None, None)),
        (b'"usage":{"prompt_tokens":-1,"completion_tokens":"2"}', (None, None)),
        (b'"usage":{"prompt_tokens":1234567890123456}', (None, None)),
        (b'"usage":', (None, None)),
    ],
)
def test_the_end_of_an_answer_tells_its_tokens(
    tail: bytes, counts: tuple[int | None, int | None]
) -> None:
    assert token_counts(tail) == counts


def test_what_a_model_writes_is_no_count() -> None:
    for text in ('"usage":{"prompt_tokens":9}', '"timings":{"predicted_n":9,"prompt_n":9}'):
        assert token_counts(json.dumps({"content": text}).encode()) == (None, None)
        real = json.dumps({"x": {"content": text}}).encode()
        assert token_counts(real[:-1] + b"," + USAGE + b"}") == (21, 16)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_comes_is_taken(before: bytes, behind: bytes) -> None:
    for number in token_counts(before + b'"usage":' + behind):
        assert number is None or 0 <= number < 10**14
