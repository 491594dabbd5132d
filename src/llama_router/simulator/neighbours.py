"""Books on who may run beside whom, kept in the plainest way there is.

They do not use the core's own rules (``core/coexistence.py``), which they are there to check.
"""

from collections.abc import Collection, Iterable

from llama_router.core.events import ModelSpec
from llama_router.core.settings import CoreSettings, GroupRule


class Neighbours:
    """Tell it what is configured; before a start, ask ``why_not``."""

    def __init__(self, models: Iterable[ModelSpec], settings: CoreSettings | None) -> None:
        self._groups = {spec.name: spec.group for spec in models}
        self._addresses = {spec.name: spec.address for spec in models}
        self._listening: dict[str, str] = {}
        """Where the last engine of each model listens, as it was configured at its start."""
        self._settings = settings or CoreSettings()

    def configured(self, models: Iterable[ModelSpec]) -> None:
        """These models are new or changed; the others keep what they had last."""
        self._groups.update((spec.name, spec.group) for spec in models)
        self._addresses.update((spec.name, spec.address) for spec in models)

    def started(self, model: str) -> None:
        """The engine of ``model`` is started now."""
        self._listening[model] = self._addresses.get(model, "")

    def changed(self, settings: CoreSettings) -> None:
        """Other rules hold for what starts from now on."""
        self._settings = settings

    def why_not(self, model: str, running: Collection[str]) -> str:
        """Return which rule a start of ``model`` would break beside these, "" for none."""
        settings = self._settings
        if settings.max_loaded and len(running) >= settings.max_loaded:
            return "no more engines start than allowed"
        address = self._addresses.get(model, "")
        if address and any(self._listening.get(other) == address for other in running):
            return "no two engines listen on one address"
        if settings.combinations:
            together = {model, *running}
            if running and not any(together <= each for each in settings.combinations):
                return "who runs together is of one combination"
            return ""
        for other in running:
            if self._sends_away(self._groups.get(model, ""), self._groups.get(other, "")):
                return "nothing starts beside what has to go for it"
        return ""

    def _sends_away(self, group: str, other: str) -> bool:
        if group == other:
            return self._rule(group).swap
        return self._rule(group).exclusive and not self._rule(other).persistent

    def _rule(self, name: str) -> GroupRule:
        for rule in self._settings.groups:
            if rule.name == name:
                return rule
        return GroupRule(name)
