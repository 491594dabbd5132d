"""What operators ask for: load, unload, another configuration, the end.

Only the consequences for each model are drawn here; what they make possible is scheduled by the
caller afterwards.
"""

from typing import Final

from llama_router.core import reasons
from llama_router.core.commands import RejectKind, Settled, ShutdownComplete
from llama_router.core.events import (
    BudgetsChanged,
    FootprintMeasured,
    LoadRequested,
    ModelsChanged,
    ModelsPatched,
    ModelSpec,
    SettingsChanged,
    ShutdownForced,
    ShutdownRequested,
    Timer,
    TimerKind,
    UnloadRequested,
)
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.memory import greater
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import State

OPERATOR_RANK: Final = 1
"""Who asks for a load waits like an interactive client without a priority."""


class Operators:
    """Handles the events that come from people and their configuration."""

    def __init__(self, ledger: Ledger, engines: Lifecycle) -> None:
        self._ledger = ledger
        self._engines = engines

    def load_requested(self, event: LoadRequested) -> None:
        """Queue for a load; the model's crashes are forgotten."""
        model = self._accept_ticket(event)
        if model is None:
            return
        ticket = Request(
            event.request_id,
            model,
            RequestKind.LOAD,
            arrived_at=self._ledger.now,
            rank=OPERATOR_RANK,
        )
        if self._ledger.shutting_down:
            self._ledger.settle(ticket, RejectKind.SHUTTING_DOWN, reasons.SHUTTING_DOWN)
        elif model.state is State.READY:
            self._ledger.settle(ticket)
        elif model.state is State.STUCK:
            self._ledger.settle(ticket, RejectKind.MODEL_STUCK, reasons.stuck(model))
        else:
            self._engines.clear(model, "an operator wants it loaded")
            self._engines.forget_out_of_memory(model)
            if self._ledger.memory.never_fits(model.memory) and not model.has_process:
                self._ledger.settle(ticket, RejectKind.DOES_NOT_FIT, reasons.does_not_fit(model))
                return
            if len(model.waiting) >= self._ledger.max_waiting(model):
                self._ledger.settle(ticket, RejectKind.QUEUE_FULL, reasons.queue_full(model))
                return
            self._ledger.enqueue(ticket)

    def unload_requested(self, event: UnloadRequested) -> None:
        """Stop the engine, after what is in flight; the model's crashes are forgotten."""
        model = self._accept_ticket(event)
        if model is None:
            return
        ticket = Request(event.request_id, model, RequestKind.UNLOAD)
        reason = "an operator wants it unloaded"
        self._engines.clear(model, reason)
        if model.state is State.STUCK:
            self._ledger.settle(ticket, RejectKind.MODEL_STUCK, reasons.stuck(model))
            return
        if model.state is State.UNLOADED:
            self._ledger.settle(ticket)
        else:
            self._ledger.requests[event.request_id] = ticket
            model.unloads[event.request_id] = ticket
            if model.state is State.READY:
                self._engines.drain(model, reason)
            elif model.state is State.STARTING:
                self._engines.stop(model, reason)
                text = f"Model '{model.name}' was unloaded while it was loading"
                self._ledger.refuse_waiters(model, RejectKind.MODEL_UNLOADED, text)

    def _accept_ticket(self, event: LoadRequested | UnloadRequested) -> Model | None:
        """Return the model of a new ticket; one for an unknown model is settled."""
        if event.request_id in self._ledger.requests:
            return None
        model = self._ledger.models.get(event.model)
        if model is None or model.removed:
            text = reasons.not_found(event.model)
            out = self._ledger.out
            out.append(Settled(event.request_id, RejectKind.MODEL_NOT_FOUND, text))
            return None
        return model

    def models_changed(self, event: ModelsChanged) -> None:
        """Follow the configuration; whoever is not affected is not touched."""
        if self._ledger.shutting_down:
            return
        specs = {spec.name: spec for spec in event.models}
        for name, model in list(self._ledger.models.items()):
            if name not in specs and not model.removed:
                self._remove(model)
        for spec in specs.values():
            self._configure(spec)

    def models_patched(self, event: ModelsPatched) -> None:
        """Follow a part of the configuration; whoever is not named is not touched."""
        if self._ledger.shutting_down:
            return
        changed = {spec.name: spec for spec in event.changed}
        for name in event.removed:
            model = self._ledger.models.get(name)
            if model is not None and name not in changed and not model.removed:
                self._remove(model)
        for spec in changed.values():
            self._configure(spec)

    def _configure(self, spec: ModelSpec) -> None:
        known = self._ledger.models.get(spec.name)
        if known is None:
            self._ledger.add(spec)
        else:
            self._reconfigure(known, spec)

    def _remove(self, model: Model) -> None:
        reason = "not configured any more"
        model.removed = True
        self._ledger.refuse_waiters(
            model, RejectKind.MODEL_NOT_FOUND, reasons.not_found(model.name)
        )
        self._engines.clear(model, reason)
        if model.state is State.UNLOADED:
            self._ledger.forget(model)
        elif model.state is State.READY:
            self._engines.drain(model, reason)
        elif model.state is State.STARTING:
            self._engines.stop(model, reason)

    def _reconfigure(self, model: Model, spec: ModelSpec) -> None:
        old, model.spec = model.spec, spec
        model.removed = False
        if model.has_process and old.group != spec.group:
            model.regrouped = True
        if not model.has_process:
            model.address = spec.address
        is_other = old.fingerprint != spec.fingerprint
        if is_other or old.memory != spec.memory:
            model.measured = ()
            if is_other or not model.ran_out:
                model.memory = spec.memory
                model.ran_out = False
            else:
                # No lower expectation undoes that its engine ran out of memory.
                model.memory = greater(model.memory, spec.memory)
        if old.load_cost_s != spec.load_cost_s:
            model.load_cost_s = spec.load_cost_s
        if old.priority < spec.priority and model.waiting and model.state is State.UNLOADED:
            self._ledger.line.add(model)
        self._engines.watch_idle(model)
        if old.fingerprint == spec.fingerprint:
            return
        reason = "its configuration changed"
        self._ledger.forget_inspection(model.name)
        self._engines.clear(model, reason)
        if model.state is State.READY:
            self._engines.drain(model, reason)
        elif model.state is State.STARTING:
            self._engines.stop(model, reason)

    # Limits

    def settings_changed(self, event: SettingsChanged) -> None:
        """Go by other limits and rules from now on; what runs already is not touched."""
        ledger = self._ledger
        if ledger.shutting_down:
            return
        ledger.set_settings(event.settings)
        for model in ledger.running.values():
            model.regrouped = True
        for model in ledger.waiting.values():
            ledger.cancel_named_timer(Timer(TimerKind.QUEUE_TIMEOUT, model.name))
            if event.settings.max_queue_s:
                ledger.set_queue_timer(model)

    def budgets_changed(self, event: BudgetsChanged) -> None:
        """Go by other budgets from now on; what runs already is not touched."""
        self._ledger.memory.set_budgets(event.budgets)

    def footprint_measured(self, event: FootprintMeasured) -> None:
        """Go by what was measured, for what runs already as well."""
        model = self._ledger.models.get(event.model)
        if model is None:
            return
        if event.load_cost_s is not None:
            model.load_cost_s = event.load_cost_s
        if event.memory:
            model.memory = model.measured = event.memory
            model.ran_out = False
            if model.state is State.READY or model.state is State.DRAINING:
                self._ledger.memory.correct(model, event.memory)

    # The end

    def shutdown_requested(self, event: ShutdownRequested) -> None:
        """Refuse all who wait, stop what is idle, drain what is not."""
        if self._ledger.shutting_down:
            return
        self._begin_shutdown()
        for model in list(self._ledger.running.values()):
            if model.state is State.READY:
                self._engines.drain(model, reasons.SHUTTING_DOWN, deadline=False)
            elif model.state is State.STARTING:
                self._engines.stop(model, reasons.SHUTTING_DOWN)
        if any(model.state is State.DRAINING for model in self._ledger.running.values()):
            self._ledger.set_timer(TimerKind.SHUTDOWN_DEADLINE, None, event.drain_deadline_s)
        self.complete_shutdown()

    def shutdown_deadline(self) -> None:
        """Stop draining."""
        self._engines.abort(self._ledger.requests, reasons.SHUTTING_DOWN)
        for model in list(self._ledger.running.values()):
            if model.state is State.DRAINING:
                self._engines.stop(model, "drained for too long")

    def shutdown_forced(self, _event: ShutdownForced) -> None:
        """Cut every request and kill every engine."""
        if not self._ledger.shutting_down:
            self._begin_shutdown()
        self._engines.abort(self._ledger.requests, reasons.SHUTTING_DOWN)
        for model in list(self._ledger.running.values()):
            self._engines.kill(model, "forced")
        self.complete_shutdown()

    def _begin_shutdown(self) -> None:
        self._ledger.shutting_down = True
        for model in list(self._ledger.models.values()):
            self._ledger.refuse_waiters(model, RejectKind.SHUTTING_DOWN, reasons.SHUTTING_DOWN)
            self._engines.clear(model, reasons.SHUTTING_DOWN)

    def complete_shutdown(self) -> None:
        """Say so, once, when a shutdown has come to its end."""
        ledger = self._ledger
        if ledger.shutting_down and not ledger.running and not ledger.shutdown_complete:
            ledger.shutdown_complete = True
            ledger.cancel_all_timers()
            ledger.out.append(ShutdownComplete())
