import json
import random
import secrets
from typing import Any

import pytest

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.peek import Peek, peek_json
from llama_router.proxy.rewrite import (
    QUICK_MEMBER_COUNT,
    Rewrite,
    TooManyMembersError,
    make_rewrite,
    refuse_lookalike,
    rewrite_json,
)


def rewritten(body: bytes, rewrite: Rewrite) -> bytes:
    return b"".join(rewrite_json(body, rewrite, peek_json(body))[0])


@pytest.mark.parametrize(
    ("body", "rewrite", "expected"),
    [
        (b'{"model":"a"}', make_rewrite(model="b"), b'{"model":"b"}'),
        (b' { "model" : "a" } ', make_rewrite(model='"'), b' { "model" : "\\"" } '),
        (b'{"model":"a","x":1}', make_rewrite(strip=["x"]), b'{"model":"a"}'),
        (b'{"x":1,"model":"a"}', make_rewrite(strip=["x"]), b'{"model":"a"}'),
        (b'{"x":1, "y":2 , "model":"a"}', make_rewrite(strip="xy"), b'{"model":"a"}'),
        (b'{ "x":1 , "model":"a"}', make_rewrite(strip=["x"]), b'{ "model":"a"}'),
        (b'{"model":"a", "x":1 , "y":2}', make_rewrite(strip=["x"]), b'{"model":"a", "y":2}'),
        (b'{"x":1}', make_rewrite(strip=["x"]), b"{}"),
        (b'{"x":1}', make_rewrite(strip=["x"], values={"y": 2}), b'{"y":2}'),
        (b"{}", make_rewrite(values={"y": 2, "z": None}), b'{"y":2,"z":null}'),
        (b"{ }", make_rewrite(model="m"), b'{ "model":"m"}'),
        (b'{"x":1}', make_rewrite(values={"x": [1]}), b'{"x":[1]}'),
        # Set wins over strip, and stays in its place.
        (b'{"x":1,"y":2}', make_rewrite(strip=["x"], values={"x": 3}), b'{"x":3,"y":2}'),
        (b'{"x":1}\n', make_rewrite(values={'a"b': "\u00e9"}), b'{"x":1,"a\\"b":"\xc3\xa9"}\n'),
        # The model is the router's: a filter neither takes it away nor gives another.
        (b'{"model":"a"}', make_rewrite(strip=["model"]), b'{"model":"a"}'),
        (b'{"model":"a"}', make_rewrite(values={"model": "b"}), b'{"model":"a"}'),
        (b'{"model":"a"}', make_rewrite(model="c", values={"model": "b"}), b'{"model":"c"}'),
        # What looks like a member within a value is none.
        (
            b'{"s":"\\"x\\":1","o":{"x":1},"x":2}',
            make_rewrite(strip=["x"]),
            b'{"s":"\\"x\\":1","o":{"x":1}}',
        ),
    ],
)
def test_only_what_is_named_is_touched(body: bytes, rewrite: Rewrite, expected: bytes) -> None:
    assert rewritten(body, rewrite) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":1,"x":2}',
        b'{"x":1,"x":1}',
        b'{"x":1,"y":2,"x":1}',
        b'{"a":1,"b":1,"a":1,"c":1}',
        b'{"\\u0078":1}',
        b'{"y":1,"\\u0078":1,"x":2}',
    ],
)
def test_keys_that_could_be_read_in_two_ways_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        rewrite_json(body, make_rewrite(strip=["x"]), Peek(None, stream=False))


@pytest.mark.parametrize("key", ["Model", "MODEL", "mOdel"])
def test_no_second_name_for_the_model_is_let_through(key: str) -> None:
    body = b'{"model":"a","%b":"b"}' % key.encode()
    with pytest.raises(BadRequestError, match="'model'"):
        rewrite_json(body, make_rewrite(), peek_json(body))
    refuse_lookalike("model")


def test_what_the_router_goes_by_is_what_the_engine_gets() -> None:
    body = b'{"model":"a","stream":true,"keep_alive":"5m","ttl":3}'
    peek = peek_json(body)

    def said(rewrite: Rewrite) -> Peek:
        return rewrite_json(body, rewrite, peek)[1]

    assert said(make_rewrite(model="b", strip=["x"])) is peek
    assert said(make_rewrite(values={"stream": False})) == Peek("a", False, 300.0)
    assert said(make_rewrite(strip=["stream"], model="b")) == Peek("a", False, 300.0)
    assert said(make_rewrite(strip=["keep_alive"])) == Peek("a", True, 3.0)
    assert said(make_rewrite(strip=["keep_alive", "ttl"])) == Peek("a", True, None)


def test_too_many_members_are_not_walked_through_on_the_loop() -> None:
    body = json.dumps({f"k{n}": n for n in range(QUICK_MEMBER_COUNT + 1)}).encode()
    rewrite, peek = make_rewrite(strip=["k7"]), peek_json(body)
    with pytest.raises(TooManyMembersError):
        rewrite_json(body, rewrite, peek, max_member_count=QUICK_MEMBER_COUNT)
    assert b"k7" not in b"".join(rewrite_json(body, rewrite, peek)[0]).split(b",")[7]


VALUES: list[Any] = [1, -2.5, True, None, "", 'a"\\', "\u20ac", [1, {"k": 2}], {"k": {"x": 1}}]


def test_any_object_keeps_its_other_members_in_order() -> None:
    seed = secrets.randbits(32)
    print(f"seed={seed}")  # noqa: T201 - to find it again
    rng = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(300):
        keys = rng.sample(
            ["model", "a", "b", "c", "stream", "\u00fc", "long key"], rng.randint(0, 7)
        )
        members = {key: rng.choice(VALUES) if key != "model" else "m" for key in keys}
        strip = rng.sample(["a", "b", "\u00fc", "none"], rng.randint(0, 4))
        values = {
            key: rng.choice(VALUES) for key in rng.sample(["b", "c", "new"], rng.randint(0, 3))
        }
        rewrite = make_rewrite(model=rng.choice([None, "n"]), strip=strip, values=values)
        body = json.dumps(
            members, ensure_ascii=False, indent=rng.choice([None, 0, 2])
        ).encode() + rng.choice([b"", b"\r\n\t "])
        expected = {
            key: values.get(key, value)
            for key, value in members.items()
            if key not in strip or key in values
        }
        expected |= {key: value for key, value in values.items() if key not in expected}
        if rewrite.model is not None:
            expected["model"] = rewrite.model
        found = rewritten(body, rewrite)
        assert list(json.loads(found).items()) == list(expected.items()), (body, rewrite)
        assert len(found) <= len(body) + rewrite.added_bytes()
        assert rewritten(body, Rewrite()) == body
