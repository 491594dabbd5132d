import pytest

from llama_router.proxy.gate import Gate, NoticeKind, Target, Waiter
from tests.support.data_plane import data_plane, post

METHODS = ("dispatch", "reject", "abort", "notify")


def test_a_target_is_a_plain_value() -> None:
    assert Target("a") == Target("a", "")
    assert Target("a", "/x") != Target("a")


def test_notices_have_the_names_that_the_core_gives_them() -> None:
    assert {kind.value for kind in NoticeKind} == {
        "unloading",
        "loading",
        "ready",
        "queued",
    }


@pytest.mark.asyncio
async def test_what_is_handed_over_is_a_waiter_and_the_fake_is_a_gate() -> None:
    async with data_plane() as plane:
        gate: Gate = plane.gate
        assert gate.control is not plane.upstream
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        waiter: Waiter = submission.waiter
        assert all(callable(getattr(waiter, name)) for name in METHODS)
        # Ids count up, and an end is told once; the fake checks both.
        assert submission.request_id == 1
        await client.close()
        await submission.ended.wait()
        with pytest.raises(AssertionError):
            gate.finished(1)
