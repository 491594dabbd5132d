"""Who gets no engine although the model is known, and why."""

from llama_router.core import reasons
from llama_router.core.commands import RejectKind
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.model import Request, RequestKind
from llama_router.core.states import State, Trigger


class Refusals:
    """Each method refuses the request if there is a reason to, and returns whether it has."""

    def __init__(self, ledger: Ledger, engines: Lifecycle) -> None:
        self._ledger = ledger
        self._engines = engines

    def by_history(self, request: Request) -> bool:
        """Refuse a newcomer for a model that crashed; a trial after a long ban is let in."""
        model = request.model
        retry_after_s = self._engines.retry_after(model)
        if not model.is_given_up:
            reason = reasons.backing_off(model)
            self._ledger.refuse(request, RejectKind.MODEL_BACKING_OFF, reason, retry_after_s)
            return True
        if retry_after_s > 0 or model.state is not State.FAILED:
            reason = reasons.given_up(model)
            self._ledger.refuse(request, RejectKind.MODEL_FAILED, reason, retry_after_s)
            return True
        model.crashes.begin_trial()
        self._ledger.move(model, Trigger.TRIAL, "a request may try it again")
        return False

    def for_want_of_room(self, request: Request) -> bool:
        """Refuse a newcomer whose model fits into no memory or whose queue is full."""
        model, ledger = request.model, self._ledger
        if not model.has_process and ledger.memory.never_fits(model.memory):
            ledger.refuse(request, RejectKind.DOES_NOT_FIT, reasons.does_not_fit(model))
            return True
        if len(model.waiting) >= (model.spec.max_waiting or ledger.settings.max_waiting):
            hint_s = max(1.0, model.load_cost_s)
            ledger.refuse(request, RejectKind.QUEUE_FULL, reasons.queue_full(model), hint_s)
            return True
        return False

    def after_bounce(self, request: Request) -> bool:
        """Refuse a request that bounced and must not, or cannot, be tried again."""
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
