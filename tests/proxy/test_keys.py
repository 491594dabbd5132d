import hashlib

import pytest

from llama_router.proxy.keys import ApiKey, KeyRing, digest_in_config, digest_of


def key(secret: str, name: str, scopes: tuple[str, ...] | None = None) -> ApiKey:
    return ApiKey(digest=digest_of(secret), name=name, scopes=scopes)


def test_a_key_may_stand_in_the_config_as_its_digest() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    assert digest_in_config(f"sha256:{digest}") == digest_in_config("secret")
    assert digest_in_config(f"sha256:{digest.upper()}") == digest_in_config("secret")
    # Whatever else looks a little like one is a key in the plain.
    assert digest_in_config(f"sha256:{digest}0") != digest_in_config("secret")
    # And the digest itself opens nothing.
    ring = KeyRing([ApiKey(digest=digest_in_config(f"sha256:{digest}"), name="ann")])
    assert ring.owners([b"sha256:" + digest.encode(), digest.encode()]) == []
    assert [one.key for one in ring.owners([b"secret"])] == ["ann"]


@pytest.mark.parametrize(
    ("token", "scopes", "expected"),
    [
        ("", None, ("inference", "admin")),
        ("t", None, ("inference",)),
        ("", ("inference",), ("inference",)),
        ("t", ("admin",), ("admin",)),
    ],
)
def test_a_key_without_scopes_opens_what_nothing_else_does(
    token: str, scopes: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    assert [one.scopes for one in KeyRing([key("k", "n", scopes)], token).callers] == [expected]


def test_each_of_several_keys_is_found() -> None:
    ring = KeyRing([key("a", "ann"), key("b", "bob")], "token")
    assert [one.key for one in ring.owners([b"b", b"x", b"a"])] == ["ann", "bob"]
    assert ring.has_admin_token([b"x", b"token"])
    assert not ring.has_admin_token([b"a"])
    assert not KeyRing([]).has_admin_token([b""])
