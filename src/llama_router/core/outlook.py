"""What there will be when all have gone who go and all have started who have a claim."""

import sys

from llama_router.core.ledger import Ledger
from llama_router.core.memory import add
from llama_router.core.model import Model


class Outlook:
    """Room to come: ``free`` bytes by device, ``places`` for engines. A scratch copy to book on."""

    def __init__(self, ledger: Ledger) -> None:
        self.free = ledger.memory.free()
        limit = ledger.settings.max_loaded
        going, claims = ledger.going.values(), ledger.claims.values()
        for model in going:
            add(self.free, model.reserved)
        for model in claims:
            add(self.free, model.memory, -1)
        self.places = (
            limit - len(ledger.running) + len(going) - len(claims) if limit else sys.maxsize
        )

    def shortfall(self, model: Model, victims: list[Model]) -> dict[str, int]:
        """Return what ``model`` lacks on each device although ``victims`` go; none: it fits."""
        missing: dict[str, int] = {}
        for part in model.memory:
            free = self.free.get(part.device)
            if free is None:
                continue
            for victim in victims:
                for held in victim.reserved:
                    if held.device == part.device:
                        free += held.size_bytes
            if part.size_bytes > free:
                missing[part.device] = part.size_bytes - free
        return missing

    def book(self, model: Model, victims: tuple[Model, ...]) -> None:
        """Take the claim of ``model`` into account."""
        for victim in victims:
            add(self.free, victim.reserved)
        add(self.free, model.memory, -1)
        self.places += len(victims) - 1
