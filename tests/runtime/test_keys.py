import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from llama_router.config.schema import ApiKeyEntry, Config, RouterSettings
from llama_router.control.facade import ControlError
from llama_router.control.facades import NewKey
from llama_router.runtime.bridge_models import may_use
from llama_router.runtime.config_file import ReadError
from llama_router.runtime.keys import Keys
from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyRecord
from llama_router.store.lock import FileLock

pytestmark = pytest.mark.asyncio

Make = Callable[..., Keys]


def new(name: str = "ann", **changes: object) -> NewKey:
    values = {
        "name": name,
        "scopes": ("inference", "admin"),
        "models": (),
        "requests_per_minute": 0,
        "max_in_flight": 0,
        "priority": 0,
        "batch": False,
    }
    return NewKey(**(values | changes))  # type: ignore[arg-type]  # as the test means


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / KEYS_FILE_NAME


@pytest_asyncio.fixture
async def make(path: Path) -> AsyncIterator[Make]:
    made: list[Keys] = []

    def make(apply: Callable[[], object] = lambda: None, **settings: object) -> Keys:
        router = RouterSettings.model_validate(settings)
        made.append(Keys(KeyFile(path), router, apply))
        return made[-1]

    yield make
    for keys in made:
        await keys.close()


def break_file(path: Path) -> None:
    path.write_text("{")


def text_of(path: Path) -> str:
    return path.read_text()


async def test_a_new_key_is_shown_once_holds_at_once_and_is_kept_as_a_hash(
    make: Make, path: Path
) -> None:
    applied: list[int] = []
    keys: Keys = make(lambda: applied.append(len(keys.rules())))
    assert not keys.rules()
    info, secret = await keys.add_key(new(models=("qwen*",), priority=2))
    assert secret.startswith("lr-")
    assert len(secret) >= 43
    (rule,) = keys.rules()
    assert rule.digest == hashlib.sha256(secret.encode()).digest()
    assert (rule.name, rule.models, rule.priority) == ("ann", ("qwen*",), 2)
    assert applied == [1]
    assert bool(keys.rules())
    assert secret not in text_of(path)
    assert secret not in repr((await keys.keys(), info, rule))
    assert make().rules() == (rule,)
    other_secret = (await keys.add_key(new("bob")))[1]
    assert other_secret != secret


async def test_a_revoked_key_is_gone_at_once_by_id_or_name(make: Make, path: Path) -> None:
    applied: list[int] = []
    keys: Keys = make(lambda: applied.append(len(keys.rules())))
    first, _ = await keys.add_key(new())
    await keys.add_key(new("bob"))
    assert (await keys.revoke_key(first.id)).name == "ann"
    assert (await keys.revoke_key("bob")).name == "bob"
    assert applied == [1, 2, 1, 0]
    assert keys.rules() == ()
    assert KeyFile(path).keys == ()
    with pytest.raises(ControlError, match="there is no key 'bob'") as raised:
        await keys.revoke_key("bob")
    assert raised.value.status == 404


async def test_the_configs_keys_come_first_and_are_changed_there(make: Make) -> None:
    digest = hashlib.sha256(b"plain").hexdigest()
    keys = make(api_keys=["plain", {"key": f"sha256:{digest}", "name": "hashed", "models": ["a"]}])
    await keys.add_key(new())
    assert [(one.name, one.source) for one in await keys.keys()] == [
        ("key 1", "config"),
        ("hashed", "config"),
        ("ann", "store"),
    ]
    assert {rule.digest.hex() for rule in keys.rules()[:2]} == {digest}
    assert keys.patterns_of("hashed") == ("a",)
    assert keys.patterns_of("") == ()
    assert not may_use(keys.patterns_of("nobody"), "a")
    for name in ("hashed", "config-1"):
        with pytest.raises(ControlError, match="config file") as raised:
            await keys.revoke_key(name)
        assert (raised.value.status, raised.value.code) == (409, "key_in_config")
    with pytest.raises(ControlError, match="already"):
        await keys.add_key(new("hashed"))
    assert "plain" not in repr(await keys.keys())


async def test_nobody_is_locked_out_of_the_admin_api_by_a_key(make: Make) -> None:
    keys = make()
    with pytest.raises(ControlError, match="nobody could use the admin API") as raised:
        await keys.add_key(new(scopes=("inference",)))
    assert raised.value.status == 409
    await keys.add_key(new("boss"))
    await keys.add_key(new(scopes=("inference",)))
    with_token = make(admin_token="t" * 20)
    await with_token.add_key(new("only", scopes=("inference",)))


async def test_the_last_key_that_opens_the_admin_api_goes_last(make: Make) -> None:
    keys = make()
    await keys.add_key(new("boss"))
    await keys.add_key(new(scopes=("inference",)))
    with pytest.raises(ControlError, match="without 'boss' nobody") as raised:
        await keys.revoke_key("boss")
    assert (raised.value.status, raised.value.code) == (409, "no_admin_left")
    await keys.revoke_key("ann")
    await keys.revoke_key("boss")
    assert not keys.rules()


async def test_keys_that_somebody_else_is_changing_are_no_fault(make: Make, path: Path) -> None:
    keys = make()
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        with pytest.raises(ControlError, match="try again") as raised:
            await keys.add_key(new())
    finally:
        lock.release()
    assert (raised.value.status, raised.value.code) == (409, "busy")
    assert not keys.rules()


async def test_the_last_key_of_a_router_that_others_reach_stays(make: Make) -> None:
    keys = make(host="0.0.0.0", allow_public_without_keys=False)
    await keys.add_key(new())
    with pytest.raises(ControlError, match="last key") as raised:
        await keys.revoke_key("ann")
    assert raised.value.code == "last_key"
    await keys.add_key(new("bob"))
    await keys.revoke_key("ann")
    keys.configure(RouterSettings.model_validate({"host": "127.0.0.1"}))
    await keys.revoke_key("bob")
    assert not keys.rules()


async def test_use_is_remembered_for_both_kinds_of_keys(make: Make, path: Path) -> None:
    keys = make(api_keys=[ApiKeyEntry(key="plain", name="conf")])
    await keys.add_key(new())
    await keys.add_key(new("idle"))
    await keys.note_used({"ann", "conf", "unknown"})
    used = {one.name: one.last_used_s is not None for one in await keys.keys()}
    assert used == {"conf": True, "ann": True, "idle": False}
    assert [one.last_used_s is not None for one in KeyFile(path).keys] == [True, False]


async def test_watching_asks_now_and_then_and_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.runtime.keys.USE_INTERVAL_S", 0)
    asked = asyncio.Event()

    class Used:
        def take_used_keys(self) -> set[str]:
            asked.set()
            return {"ann"}

    keys = make()
    await keys.add_key(new())
    keys.watch(Used())
    async with asyncio.timeout(20):
        await asked.wait()
        while (await keys.keys())[0].last_used_s is None:  # noqa: ASYNC110 - it says so to nobody
            await asyncio.sleep(0)
    await keys.close()


async def test_keys_that_another_process_makes_or_revokes_hold_from_the_next_reload_on(
    make: Make, path: Path
) -> None:
    keys = make()
    _info, secret = await keys.add_key(new())
    other = KeyFile(path)
    other.add(msgspec.structs.replace(other.keys[0], id="id2", name="bob", digest="00" * 32))
    other.revoke(other.keys[0].id)
    assert [rule.name for rule in keys.rules()] == ["ann"]
    assert keys.reread(Config()) == []
    # The reload may still fail.
    assert [rule.name for rule in keys.rules()] == ["ann"]
    assert [one.name for one in await keys.keys()] == ["ann"]
    keys.configure(RouterSettings())
    assert [rule.name for rule in keys.rules()] == ["bob"]
    assert secret not in text_of(path)


async def test_a_key_file_that_has_become_unreadable_changes_nothing(
    make: Make, path: Path
) -> None:
    keys = make()
    await keys.add_key(new())
    break_file(path)
    with pytest.raises(ReadError, match="make no sense"):
        keys.reread(Config())
    keys.configure(RouterSettings())
    assert [rule.name for rule in keys.rules()] == ["ann"]


async def test_what_another_process_has_changed_is_noticed_when_uses_are_written(
    make: Make, path: Path
) -> None:
    applied: list[int] = []
    keys: Keys = make(lambda: applied.append(len(keys.rules())))
    await keys.add_key(new())
    await keys.add_key(new("bob"))
    await keys.note_used({"ann"})
    assert applied == [1, 2]
    other = KeyFile(path)
    other.revoke(other.keys[1].id)
    await keys.note_used({"ann"})
    assert applied == [1, 2, 1]
    assert [rule.name for rule in keys.rules()] == ["ann"]


@pytest.mark.parametrize("is_same_secret", [False, True])
async def test_a_stored_key_opens_nothing_beside_one_of_the_config_that_is_called_so_or_the_same(
    make: Make,
    is_same_secret: bool,  # noqa: FBT001 - a table
) -> None:
    keys = make()
    info, secret = await keys.add_key(new(models=("qwen*",), max_in_flight=3))
    await keys.add_key(new("bob"))
    assert keys.doubts() == []
    entry = {"key": secret, "name": "other"} if is_same_secret else {"key": "plain", "name": "ann"}
    settings = RouterSettings.model_validate({"api_keys": [entry]})
    doubts = keys.reread(Config(router=settings))
    assert len(doubts) == 1
    assert "'ann' that was made by `llama-router keys`, which opens nothing" in doubts[0]
    assert f"llama-router keys revoke {info.id}" in doubts[0]
    assert secret not in doubts[0]
    keys.configure(settings)
    assert keys.doubts() == doubts
    assert [rule.name for rule in keys.rules()] == [entry["name"], "bob"]
    assert keys.rules()[0].max_in_flight == 0
    assert keys.patterns_of(entry["name"]) == ()
    shown = {(one.name, one.source): one.scopes for one in await keys.keys()}
    assert shown["ann", "store"] == ()
    await keys.note_used({"ann"})
    assert [one.last_used_s for one in await keys.keys() if one.source == "store"] == [None] * 2
    # It can go though nobody else were an administrator, and comes back with the config's.
    keys.configure(RouterSettings())
    assert [rule.name for rule in keys.rules()] == ["ann", "bob"]
    keys.configure(settings)
    assert (await keys.revoke_key("ann")).scopes == ()
    assert keys.doubts() == []


async def test_a_name_of_the_config_is_not_given_to_another_key(make: Make, path: Path) -> None:
    keys = make(api_keys=[{"key": "plain", "name": "conf"}, "nameless"])
    for name in ("conf", "key 2"):
        with pytest.raises(ControlError, match="already, in the config file") as raised:
            await keys.add_key(new(name))
        assert (raised.value.status, raised.value.code) == (409, "key_exists")
    # Another process has taken it meanwhile.
    KeyFile(path).add(
        KeyRecord(id="id1", name="ann", digest="00" * 32, scopes=("inference",), created_s=1.0)
    )
    with pytest.raises(ControlError, match="there is a key 'ann' already") as raised:
        await keys.add_key(new())
    assert (raised.value.status, raised.value.code) == (409, "key_exists")


async def test_what_cannot_be_written_does_not_hold(make: Make, path: Path) -> None:
    applied: list[int] = []
    keys = make(lambda: applied.append(1))
    os.mkdir(path)  # noqa: PTH102 - a fault to be met, on a loop that has nothing else to do
    with pytest.raises(ControlError, match="cannot be") as raised:
        await keys.add_key(new())
    assert raised.value.status == 500
    assert (keys.rules(), applied) == ((), [])


async def test_two_of_one_name_are_not_made_at_a_time(make: Make) -> None:
    keys = make()
    results = await asyncio.gather(*(keys.add_key(new()) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(one, ControlError) for one in results) == 2
    assert len(keys.rules()) == 1
