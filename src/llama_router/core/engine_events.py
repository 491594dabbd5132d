"""What becomes of engines, taken in: which model it is about, if it still is, and what follows.

What it makes possible is scheduled by the caller's ``schedule``.
"""

from collections.abc import Callable

from llama_router.core.events import (
    AddressStolen,
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    ExitCause,
    SpawnFailed,
)
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.model import Model
from llama_router.core.operators import Operators
from llama_router.core.states import State


class EngineEvents:
    """Handles the events that engines cause."""

    def __init__(
        self,
        ledger: Ledger,
        engines: Lifecycle,
        operators: Operators,
        schedule: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._engines = engines
        self._operators = operators
        self._schedule = schedule

    def _current(self, name: str, generation: int) -> Model | None:
        """Return the model whose present engine an event is about, if it still is that one."""
        model = self._ledger.models.get(name)
        return model if model is not None and model.generation == generation else None

    def spawned(self, event: EngineSpawned) -> None:
        """Nothing depends on it: a stop that was asked for before it holds after it as well."""

    def spawn_failed(self, event: SpawnFailed) -> None:
        """No process came of a spawn."""
        model = self._current(event.model, event.generation)
        if model is None:
            return
        if model.state is State.STARTING:
            self._engines.spawn_failed(model, event.reason)
            self._schedule()
        elif model.has_process:
            self._reap(model, event.reason)

    def progress(self, event: EngineProgress) -> None:
        """A load has come further."""
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            self._engines.progressed(model, event.fraction)

    def ready(self, event: EngineReady) -> None:
        """The engine answers."""
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            self._engines.ready(model)
            self._schedule()

    def exited(self, event: EngineExited) -> None:
        """The process ended; stopped or not, it is still to be reaped."""
        model = self._current(event.model, event.generation)
        if model is None or not model.has_process or model.state is State.STOPPING:
            return
        if model.state is State.STARTING and event.cause is ExitCause.ADDRESS_IN_USE:
            self._engines.lost_address(model, event.reason, exited=True)
        else:
            if event.cause is ExitCause.OUT_OF_MEMORY:
                self._engines.ran_out_of_memory(model)
            self._engines.exited(model, event.reason)
        self._schedule()

    def reaped(self, event: EngineReaped) -> None:
        """Nothing of the process is left."""
        model = self._current(event.model, event.generation)
        if model is not None and (model.has_process or model.state is State.STUCK):
            self._reap(model, "the process is gone")

    def _reap(self, model: Model, reason: str) -> None:
        if model.has_process and model.state is not State.STOPPING:
            self._engines.exited(model, reason)  # the report of its exit is late or lost
        self._engines.reaped(model, reason)
        self._schedule()
        self._operators.complete_shutdown()

    def address_stolen(self, event: AddressStolen) -> None:
        """Somebody else answers in the engine's place."""
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            reason = "another process answers on its address"
            self._engines.lost_address(model, reason, exited=False)
            self._schedule()
