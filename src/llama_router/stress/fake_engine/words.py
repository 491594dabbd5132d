"""What the fake engine says: its own name, then numbers. Deterministic."""

from typing import Any

from llama_router.stress.fake_engine.state import Engine


def token_text(alias: str, number: int) -> str:
    """Give the token at a place of the answer: " alpha", then " 1", then " 2" and so on."""
    return f" {alias}" if number == 0 else f" {number}"


def answer_words(engine: Engine, body: dict[str, Any]) -> tuple[list[str], str]:
    """Give the tokens of a whole answer, and why it ended."""
    limit = body.get("max_tokens", body.get("n_predict"))
    natural = engine.options.tokens
    count = natural if limit is None or limit < 0 else min(limit, natural)
    words = [token_text(engine.alias, number) for number in range(count)]
    return words, "length" if count < natural else "stop"


def token_count(prompt: object) -> int:
    """Count a prompt's words, in whatever form it came."""
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, dict):
        return token_count(prompt.get("content"))
    if isinstance(prompt, list):
        return sum(token_count(part) for part in prompt)
    return 1
