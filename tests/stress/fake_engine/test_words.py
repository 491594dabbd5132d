from llama_router.stress.fake_engine.words import answer_words, token_count, token_text
from tests.support.fake_engine_parts import engine_of


def test_an_answer_begins_with_the_engines_name_and_counts() -> None:
    assert [token_text("alpha", number) for number in range(3)] == [" alpha", " 1", " 2"]
    assert answer_words(engine_of("--tokens", "2"), {}) == ([" alpha", " 1"], "stop")
    assert answer_words(engine_of("--tokens", "9"), {"max_tokens": 1}) == ([" alpha"], "length")


def test_prompts_of_every_form_are_counted() -> None:
    assert token_count([{"content": "a b"}, {"content": [{"content": "c"}]}]) == 3
    assert token_count(7) == 1
