import msgspec
import pytest
from pydantic import ValidationError

from llama_router.control.shapes import Answer, Order, drained, encoded, json_of


class Thing(Order):
    size: int
    share: float = 0.0


class Shown(Answer):
    size: int


def test_orders_convert_nothing_and_know_what_they_know() -> None:
    assert Thing.model_validate({"size": 5, "share": 1}).share == 1.0
    for wrong in ({"size": "5"}, {"size": 5.0}, {"size": True}, {"size": 1, "x": 1}, {}):
        with pytest.raises(ValidationError):
            Thing.model_validate(wrong)
    with pytest.raises(ValidationError):
        Thing.model_validate({"size": 1, "share": float("nan")})


def test_answers_are_described_as_having_nothing_else() -> None:
    assert Shown.model_json_schema()["additionalProperties"] is False


def test_structs_within_are_encoded_too() -> None:
    class Inner(msgspec.Struct):
        a: int

    answer = encoded({"inner": [Inner(1)]}, 201)
    assert (answer.status_code, answer.body) == (201, b'{"inner":[{"a":1}]}')
    assert answer.media_type == "application/json"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"a": [], "b": [1, "x", None, [2], {"c": [3]}], 'd"\n': {"e": 1.5}},
        [1, 2],
        {"ü": ["\u2028", "<script>"]},
    ],
)
def test_piece_by_piece_it_is_the_same_json(content: object) -> None:
    assert json_of(content) == msgspec.json.encode(content)


def test_a_drained_list_lets_each_item_go_before_the_next() -> None:
    items = ["a", "b", "c"]
    left = [(item, len(items)) for item in drained(items)]
    assert left == [("a", 2), ("b", 1), ("c", 0)]
