"""How many tokens an answer cost, as the end of it says.

Sources: the OpenAI API reference (``usage`` of completions, chat, embeddings and responses),
Anthropic's (``usage`` with input and output tokens), llama.cpp's tools/server (``timings``).
"""

import re

# An object with the details of OpenAI's is 300 bytes, llama-server's timings as many.
_OBJECT_MAX_BYTES = 1024
_USAGE = b'"usage":'
_TIMINGS = b'"timings":'
_USAGE_IN = re.compile(rb'"(?:prompt|input)_tokens":\s*([0-9]{1,12})\b')
# Anthropic's "input_tokens" leave out what was cached, OpenAI's include it.
_USAGE_CACHED = re.compile(rb'"cache_(?:read|creation)_input_tokens":\s*([0-9]{1,12})\b')
_USAGE_OUT = re.compile(rb'"(?:completion|output)_tokens":\s*([0-9]{1,12})\b')
_TIMINGS_IN = re.compile(rb'"prompt_n":\s*([0-9]{1,12})\b')
# Tokens of the prompt that were there already; ``prompt_n`` leaves them out, ``usage`` does not.
_TIMINGS_CACHED = re.compile(rb'"cache_n":\s*([0-9]{1,12})\b')
_TIMINGS_OUT = re.compile(rb'"predicted_n":\s*([0-9]{1,12})\b')


def token_counts(tail: bytes) -> tuple[int | None, int | None]:
    """Return the tokens read and written, None for what ``tail`` does not say.

    ``tail`` is the end of an answer, JSON or events; it is searched and not parsed, as it begins
    anywhere. What a model has written cannot be taken for a count: its quotes are escaped.
    """
    tokens_in = tokens_out = None
    start = tail.rfind(_USAGE)
    if start >= 0:
        end = start + _OBJECT_MAX_BYTES
        tokens_in = _number(_USAGE_IN, tail, start, end)
        tokens_out = _number(_USAGE_OUT, tail, start, end)
        if tokens_in is not None:
            tokens_in += sum(map(int, _USAGE_CACHED.findall(tail, start, end)))
    if tokens_in is None or tokens_out is None:
        start = tail.rfind(_TIMINGS)
        if start >= 0:
            end = start + _OBJECT_MAX_BYTES
            read = _number(_TIMINGS_IN, tail, start, end)
            if tokens_in is None and read is not None:
                tokens_in = read + (_number(_TIMINGS_CACHED, tail, start, end) or 0)
            if tokens_out is None:
                tokens_out = _number(_TIMINGS_OUT, tail, start, end)
    return tokens_in, tokens_out


def _number(pattern: re.Pattern[bytes], text: bytes, start: int, end: int) -> int | None:
    found = pattern.search(text, start, end)
    return int(found[1]) if found is not None else None
