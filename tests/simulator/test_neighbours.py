from llama_router.core.events import ModelSpec
from llama_router.core.settings import CoreSettings, GroupRule
from llama_router.simulator.neighbours import Neighbours

MODELS = [ModelSpec("a", "g"), ModelSpec("b", "g"), ModelSpec("c", "h")]


def test_without_rules_other_groups_are_in_the_way() -> None:
    books = Neighbours(MODELS, None)
    assert books.why_not("a", ["b"]) == ""
    assert "has to go" in books.why_not("a", ["c"])


def test_rules_are_of_the_group_that_is_loaded_and_persistence_of_the_other() -> None:
    rules = (GroupRule("g", swap=True, exclusive=False), GroupRule("h"))
    books = Neighbours(MODELS, CoreSettings(groups=rules))
    assert [bool(books.why_not(*pair)) for pair in (("a", ["b"]), ("a", ["c"]), ("c", ["a"]))] == [
        True,
        False,
        True,
    ]
    books.changed(CoreSettings(groups=(GroupRule("g", persistent=True),)))
    assert books.why_not("c", ["a"]) == ""


def test_combinations_are_about_all_who_run() -> None:
    books = Neighbours(MODELS, CoreSettings(combinations=(frozenset("ab"), frozenset("bc"))))
    assert books.why_not("a", ["b"]) == books.why_not("x", []) == ""
    assert books.why_not("a", ["b", "c"])
    assert books.why_not("x", ["a"])


def test_a_changed_group_and_a_lower_limit_hold_from_then_on() -> None:
    books = Neighbours(MODELS, None)
    books.configured([ModelSpec("c", "g")])
    assert books.why_not("a", ["c"]) == ""
    books.changed(CoreSettings(max_loaded=1))
    assert "no more engines" in books.why_not("a", ["c"])
