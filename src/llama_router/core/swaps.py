"""Carries claims out: who has to go is closed and stopped, who is next started in its place.

A policy decides who claims what (``Claim``); here nothing is weighed any more. A claim holds until
its model is started or nobody waits for it any longer. The claims are booked in advance, see
``Outlook``, so that no two count on the same memory. Nobody is closed or stopped for the sake of a
model before that was inspected (``Inspections``); until then its claim is booked and nothing more.
"""

from typing import Final

from llama_router.core.commands import NoticeKind
from llama_router.core.inspections import Inspections
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.memory import add, lacks
from llama_router.core.model import Model
from llama_router.core.policies.base import Claim
from llama_router.core.states import State


class Swaps:
    """Changes ``claims`` and ``going`` of the ledger."""

    def __init__(self, ledger: Ledger, engines: Lifecycle) -> None:
        self._ledger = ledger
        self._engines = engines
        self.inspections: Final = Inspections(ledger)
        self._reopened: dict[str, Model] = {}

    def claim(self, claim: Claim) -> None:
        """Note who is next and close those who have to go for it; :meth:`advance` does the rest."""
        ledger = self._ledger
        ledger.claims[claim.model.name] = claim.model
        for victim in claim.victims:
            victim.chosen_for = claim.model.name
            victim.closing_reason = claim.reason
            ledger.going[victim.name] = victim
        if claim.victims and self.inspections.have_passed(claim.model):
            self._close_for(claim.model)

    def inspected(self, model: Model) -> None:
        """Go on with the claim of ``model``: it can be started, as far as anybody can say."""
        self.inspections.passed(model)
        if any(
            victim.chosen_for == model.name and victim.state is State.STARTING and victim.waiting
            for victim in self._ledger.going.values()
        ):
            self.abandon()  # a load that somebody waits for by now is finished and used once
        else:
            self._close_for(model)

    def make_way(self, victim: Model, sake_of: Model) -> None:
        """Stop ``victim`` for a model that has no claim in the books."""
        if victim.state is not State.STOPPING and self.inspections.have_passed(sake_of):
            victim.closing = sake_of.name
            self._stop(victim, sake_of, "its request is the oldest")

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
            # Whoever fits by now takes nothing from those before it: all claims together fit into
            # what there will be when all have gone who go.
            has_room = places > 0 and not lacks(free, model.memory)
            if has_room and ledger.coexistence.may_start(model, ledger.running.values()):
                self._start(model)
                places -= 1
                add(free, model.memory, -1)
        if any(
            (victim.chosen_for or victim.closing) not in ledger.claims
            for victim in ledger.going.values()
            if victim.state in (State.STARTING, State.READY)
        ):
            # Its claimant found room without it; others may have counted on it as well.
            self.abandon()
            return True
        return False

    def abandon(self) -> None:
        """Give all claims up, to be weighed anew: something that they were based on has changed.

        To be followed by a look at those who wait. Only after it those are served whose model stays
        after all, so that what is decided again as it was has not been delayed by it.
        """
        ledger = self._ledger
        claims = list(ledger.claims.values())
        ledger.claims.clear()
        for model in claims:
            if model.waiting and model.state is State.UNLOADED:
                ledger.line.add(model)
        for model in list(ledger.going.values()):
            model.closing = model.chosen_for = ""
            if model.state in (State.STARTING, State.READY):
                del ledger.going[model.name]
                self._reopened[model.name] = model

    def end_look(self) -> None:
        """Conclude a look at those who wait: what has not been decided in it is not to be."""
        self.inspections.end_look()
        if self._reopened:
            for model in self._reopened.values():
                is_open = model.state is State.READY and not model.held and not model.closing
                if is_open and model.waiting:
                    self._ledger.serve(model)
            self._reopened.clear()

    def _close_for(self, model: Model) -> None:
        ledger = self._ledger
        for victim in ledger.going.values():
            if victim.chosen_for != model.name:
                continue
            victim.chosen_for = ""
            if victim.state in (State.STARTING, State.READY):
                victim.closing = model.name
                # Who waited before a swap so early was promised to be served by this load.
                early = ledger.now < ledger.turn_end(victim)
                victim.turn = len(victim.waiting) if early else 0

    def _start(self, model: Model) -> None:
        del self._ledger.claims[model.name]
        for victim in self._ledger.going.values():
            if victim.closing == model.name and victim.state not in (State.STARTING, State.READY):
                victim.closing = ""  # it still goes, but for nobody any more
        self._engines.start(model)

    def _may_go(self, victim: Model) -> bool:
        if victim.state is State.STARTING:
            return not victim.waiting
        has_turn = (
            victim.turn > 0 and victim.waiting and self._ledger.now < self._ledger.turn_end(victim)
        )
        return victim.state is State.READY and not victim.in_flight and not has_turn

    def _evict(self, victim: Model) -> None:
        ledger = self._ledger
        self._stop(victim, ledger.models[victim.closing], victim.closing_reason)

    def _stop(self, victim: Model, sake_of: Model, reason: str) -> None:
        victim.last_eviction = f"for {sake_of.name}: {reason}"
        self._engines.stop(victim, f"swap for {sake_of.name}: {reason}")
        self._ledger.notify_waiters(sake_of, NoticeKind.UNLOADING, victim)
