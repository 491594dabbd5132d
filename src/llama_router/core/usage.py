"""How often each model is used: what an eviction costs depends on it."""

from collections.abc import Mapping
from typing import Final

from llama_router.core.model import Model

HALF_LIFE_COUNT: Final = 100
"""After so many uses, of whichever models, one counts for half: small enough to follow when other
models become popular, large enough to know those that are asked for seldom by their frequency. A
clock would not do: a night without requests says nothing about tomorrow.
"""

_GROWTH: Final = 2.0 ** (1.0 / HALF_LIFE_COUNT)
_RESCALED_AT: Final = 2.0**256  # floating point numbers go far beyond it


class Usage:
    """Counts uses that would each have cost a load, had the model not been there.

    Requests that come while a load would last share it, so of these only the first counts; a burst
    of many makes a model no dearer to lose than a few that are far apart.

    Instead of all old uses losing weight each new one gets a larger one ("forward decay", Cormode
    and others 2009), so that only the model that is used has to be touched. ``Model.uses`` is in
    this growing unit.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models
        self._unit = 1.0

    def count(self, model: Model, now: float) -> None:
        """Count a request of ``model`` if it is a use."""
        if now >= model.counted_at + model.load_cost_s:
            model.counted_at = now
            self._unit *= _GROWTH
            model.uses += self._unit
            if self._unit > _RESCALED_AT:
                for each in self._models.values():
                    each.uses /= self._unit
                self._unit = 1.0

    def of(self, model: Model) -> float:
        """Return the uses of ``model``, the old ones for less."""
        return model.uses / self._unit
