"""Who gets no engine although the model is known, and why."""

from typing import Final

from llama_router.core import reasons
from llama_router.core.commands import RejectKind
from llama_router.core.crashes import TRIAL_AFTER_S
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import MIN_RETRY_AFTER_S, Lifecycle
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import State, Trigger

MAX_RETRY_AFTER_S: Final = 60.0
"""What is to come is not known any further ahead than this."""


def expected_wait_s(ledger: Ledger, model: Model) -> float:
    """Return about how long a newcomer for ``model`` would wait, as a hint for when to come back.

    Of a model that is served it is how long the oldest in its queue has waited; of one that is not
    loaded, its load and what is left of the longest that its oldest waiter can be made to wait.
    """
    oldest_s = ledger.now - model.waiting.head.arrived_at if model.waiting else 0.0
    wait_s = model.load_cost_s
    if model.state is State.READY and not model.closing:
        wait_s = oldest_s
    elif model.state is State.STARTING:
        wait_s *= 1.0 - (model.fraction or 0.0)
    elif model.state is State.UNLOADED:
        wait_s += max(0.0, ledger.settings.max_wait_s - oldest_s)
    return min(max(wait_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)


class Refusals:
    """Refuses requests if there is a reason to."""

    def __init__(self, ledger: Ledger, engines: Lifecycle) -> None:
        self._ledger = ledger
        self._engines = engines

    def by_history(self, request: Request) -> bool:
        """Refuse a newcomer for a model that crashed; a trial after a long ban is let in.

        Returns whether it has.
        """
        model = request.model
        retry_after_s = self._engines.retry_after(model)
        if not model.is_given_up:
            reason = reasons.backing_off(model)
            self._ledger.refuse(request, RejectKind.MODEL_BACKING_OFF, reason, retry_after_s)
            return True
        if model.crashes.retry_at > self._ledger.now or model.state is not State.FAILED:
            reason = reasons.given_up(model)
            self._ledger.refuse(request, RejectKind.MODEL_FAILED, reason, retry_after_s)
            return True
        model.crashes.begin_trial()
        self._ledger.move(model, Trigger.TRIAL, "a request may try it again")
        return False

    def for_want_of_room(self, request: Request) -> bool:
        """Refuse a newcomer whose model fits into no memory or has all the requests it may have.

        One that is too large only because it ran out of memory, long ago, is tried as it is.
        Returns whether it has.
        """
        model, ledger = request.model, self._ledger
        if not model.has_process and ledger.memory.never_fits(model.memory):
            if ledger.now >= model.ran_out_at + TRIAL_AFTER_S:
                self._engines.forget_out_of_memory(model)
            if ledger.memory.never_fits(model.memory):
                ledger.refuse(request, RejectKind.DOES_NOT_FIT, reasons.does_not_fit(model))
                return True
        if len(model.waiting) >= ledger.max_waiting(model):
            hint_s = expected_wait_s(ledger, model)
            ledger.refuse(request, RejectKind.QUEUE_FULL, reasons.queue_full(model), hint_s)
            return True
        limit = model.spec.max_requests
        if limit and len(model.waiting) + len(model.in_flight) - model.extras >= limit:
            hint_s = expected_wait_s(ledger, model)
            ledger.refuse(request, RejectKind.QUEUE_FULL, reasons.too_many(model), hint_s)
            return True
        return False

    def for_waiting_too_long(self, model: Model) -> None:
        """Refuse the clients in the queue of ``model`` whose time is over; operators may wait."""
        ledger = self._ledger
        limit_s = ledger.settings.max_queue_s
        overdue = [
            request
            for request in model.waiting
            if request.kind is RequestKind.CLIENT and request.arrived_at + limit_s <= ledger.now
        ]
        hint_s = expected_wait_s(ledger, model)
        for request in overdue:
            ledger.leave(request)
            text = reasons.queue_timeout(model, limit_s)
            ledger.refuse(request, RejectKind.QUEUE_TIMEOUT, text, hint_s)

    def after_bounce(self, request: Request) -> bool:
        """Refuse a request that bounced and must not, or cannot, be tried again.

        Returns whether it has.
        """
        model = request.model
        refuse = self._ledger.refuse
        if self._ledger.shutting_down:
            refuse(request, RejectKind.SHUTTING_DOWN, reasons.SHUTTING_DOWN)
        elif model.removed:
            refuse(request, RejectKind.MODEL_NOT_FOUND, reasons.not_found(model.name))
        elif request.aborted:
            refuse(request, RejectKind.MODEL_UNLOADED, f"Model '{model.name}' was unloaded")
        elif request.bounced or request.kind is RequestKind.VISITOR:
            text = f"The engine of model '{model.name}' ended before it answered"
            refuse(request, RejectKind.ENGINE_CRASHED, text)
        elif model.state is State.STUCK:
            refuse(request, RejectKind.MODEL_STUCK, reasons.stuck(model))
        elif model.is_given_up:
            retry_after_s = self._engines.retry_after(model)
            refuse(request, RejectKind.MODEL_FAILED, reasons.given_up(model), retry_after_s)
        else:
            return False
        return True
