import asyncio

import pytest

from llama_router.hub.gate import Gate

pytestmark = pytest.mark.asyncio


class Visitor:
    """Somebody who goes in and stays until told to leave."""

    def __init__(self, gate: Gate) -> None:
        self.is_in = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(gate))

    async def _visit(self, gate: Gate) -> None:
        async with gate:
            self.is_in = True
            await self._leave.wait()
            self.is_in = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_comes_in_in_turn_and_with_a_higher_limit_at_once() -> None:
    gate = Gate(1)
    visitors = [Visitor(gate) for _ in range(4)]
    await settled()
    assert [one.is_in for one in visitors] == [True, False, False, False]
    gate.limit = 3
    await settled()
    assert [one.is_in for one in visitors] == [True, True, True, False]
    gate.limit = 1
    await visitors[0].leave()
    await visitors[1].leave()
    await settled()
    assert [one.is_in for one in visitors] == [False, False, True, False]
    await visitors[2].leave()
    await settled()
    assert visitors[3].is_in
    await visitors[3].leave()
    assert (gate.inside_count, gate.limit) == (0, 1)


async def test_who_goes_while_waiting_or_just_let_in_takes_no_place() -> None:
    gate = Gate(1)
    first, waiting, last = (Visitor(gate) for _ in range(3))
    await settled()
    waiting.task.cancel()
    await asyncio.wait((waiting.task,))
    await first.leave()
    await settled()
    assert last.is_in

    let_in = Visitor(gate)
    await settled()
    gate.limit = 2
    # It has its place, and does not know yet.
    let_in.task.cancel()
    await asyncio.wait((let_in.task,))
    assert gate.inside_count == 1
    await last.leave()
    assert gate.inside_count == 0
