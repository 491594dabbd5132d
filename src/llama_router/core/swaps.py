"""Carries claims out: who has to go is closed and stopped, who is next started in its place.

A policy decides who claims what (``Claim``); here nothing is weighed any more. A claim holds until
its model is started or nobody waits for it any longer. The claims are booked in advance, see
``Outlook``, so that no two count on the same memory.
"""

from collections.abc import Callable

from llama_router.core.commands import NoticeKind
from llama_router.core.eviction import loss_of
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.memory import add, lacks
from llama_router.core.model import Model
from llama_router.core.policies.base import Claim
from llama_router.core.states import State


class Swaps:
    """Changes ``claims`` and ``going`` of the ledger."""

    def __init__(
        self, ledger: Ledger, engines: Lifecycle, excludes: Callable[[Model, Model], bool]
    ) -> None:
        self._ledger = ledger
        self._engines = engines
        self._excludes = excludes

    def claim(self, claim: Claim) -> None:
        """Note who is next and close those who have to go for it; :meth:`advance` does the rest."""
        ledger = self._ledger
        ledger.claims[claim.model.name] = claim.model
        for victim in claim.victims:
            victim.closing = claim.model.name
            victim.closing_reason = claim.reason
            # Who waited before a swap so early was promised to be served by this load.
            early = ledger.now < ledger.min_residency_end(victim)
            victim.turn = len(victim.waiting) if early else 0
            ledger.going[victim.name] = victim

    def advance(self) -> bool:
        """Stop who is idle by now and start who has room by now.

        Returns whether claims had to be given up, so that there is something to weigh anew.
        """
        ledger = self._ledger
        if not ledger.claims:
            return False
        if any(
            model.state is not State.UNLOADED or not model.waiting
            for model in ledger.claims.values()
        ):
            self.abandon()
            return True
        for victim in list(ledger.going.values()):
            if victim.closing and self._may_go(victim):
                self._evict(victim)
        free = ledger.memory.free()
        limit = ledger.settings.max_loaded
        places = limit - len(ledger.running) if limit else len(ledger.claims)
        for model in list(ledger.claims.values()):
            if places > 0 and not lacks(free, model.memory) and not self._is_excluded(model):
                self._start(model)
            # For those behind it its room is taken, be it only reserved.
            places -= 1
            add(free, model.memory, -1)
        if any(
            victim.closing not in ledger.claims
            for victim in ledger.going.values()
            if victim.closing and victim.state is State.READY
        ):
            # Its claimant found room without it; others may have counted on it as well.
            self.abandon()
            return True
        return False

    def abandon(self) -> None:
        """Give all claims up, to be weighed anew: something that they were based on has changed."""
        ledger = self._ledger
        claims = list(ledger.claims.values())
        ledger.claims.clear()
        for model in claims:
            if model.waiting and model.state is State.UNLOADED:
                ledger.line.add(model)
        for model in list(ledger.going.values()):
            if model.closing and model.state in (State.STARTING, State.READY):
                model.closing = ""
                del ledger.going[model.name]
                if model.waiting and model.state is State.READY and not model.held:
                    ledger.serve(model)

    def _start(self, model: Model) -> None:
        del self._ledger.claims[model.name]
        self._engines.start(model)

    def _is_excluded(self, model: Model) -> bool:
        # Of those who stay none excludes it, or it would have no claim.
        return any(self._excludes(model, other) for other in self._ledger.going.values())

    def _may_go(self, victim: Model) -> bool:
        if victim.state is State.STARTING:
            return not victim.waiting
        has_turn = (
            victim.turn > 0
            and victim.waiting
            and self._ledger.now < self._ledger.min_residency_end(victim)
        )
        return victim.state is State.READY and not victim.in_flight and not has_turn

    def _evict(self, victim: Model) -> None:
        ledger = self._ledger
        ledger.inflation = max(ledger.inflation, loss_of(victim))
        victim.uses /= 2
        sake_of = ledger.models[victim.closing]
        self._engines.stop(victim, f"swap for {sake_of.name}: {victim.closing_reason}")
        ledger.notify_waiters(sake_of, NoticeKind.UNLOADING, victim)
