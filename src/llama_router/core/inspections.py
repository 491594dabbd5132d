"""Whether a model could be started at all is asked before another one is given up for it.

A model whose executable or file is gone must not cost a healthy one. The question goes out as
``Inspect``; until it is answered nobody is closed or stopped for the model's sake. The answer holds
for one claim: as long as, look after look, somebody has to go for the model.
"""

from typing import Final

from llama_router.core.commands import Inspect
from llama_router.core.events import ModelInspected, Timer, TimerKind
from llama_router.core.ledger import Ledger
from llama_router.core.model import Inspection, Model
from llama_router.core.states import State

INSPECTION_DEADLINE_S: Final = 5.0
"""A file system that has not answered by then may answer the engine; who waits has waited enough.
"""


class Inspections:
    """Asks, and remembers what was answered for as long as it is of use."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted: dict[str, None] = {}
        """For whom somebody had to go in the present look at those who wait."""

    def have_passed(self, model: Model) -> bool:
        """Return whether others may go for the sake of ``model``; ask if nobody has asked yet."""
        ledger = self._ledger
        self._wanted[model.name] = None
        inspection = ledger.inspections.get(model.name)
        if inspection is not None:
            return inspection.is_passed
        ledger.last_inspection += 1
        number = ledger.last_inspection
        ledger.inspections[model.name] = Inspection(number)
        ledger.out.append(Inspect(model.name, number))
        timer = Timer(TimerKind.INSPECTION, model.name, number)
        ledger.set_named_timer(timer, ledger.now + INSPECTION_DEADLINE_S)
        return False

    def answered(self, event: ModelInspected) -> Model | None:
        """Return the model that the answer is about, if it is still waited for."""
        inspection = self._ledger.inspections.get(event.model)
        if inspection is None or inspection.number != event.inspection or inspection.is_passed:
            return None
        return self._ledger.models[event.model]

    def passed(self, model: Model) -> None:
        """Note that nothing speaks against starting ``model``, or that nobody can say."""
        ledger = self._ledger
        inspection = ledger.inspections[model.name]
        inspection.is_passed = True
        ledger.cancel_named_timer(Timer(TimerKind.INSPECTION, model.name, inspection.number))

    def end_look(self) -> None:
        """Forget what was asked for claims that are no more."""
        ledger = self._ledger
        if ledger.inspections:
            going_for = {model.closing: None for model in ledger.going.values()}
            for name in list(ledger.inspections):
                model = ledger.models.get(name)
                if (
                    model is None
                    or model.state is not State.UNLOADED
                    or not model.waiting
                    or not (name in ledger.claims or name in self._wanted or name in going_for)
                ):
                    ledger.forget_inspection(name)
        self._wanted.clear()
