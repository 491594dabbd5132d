"""Lets requests wait, very shortly, until it is known what their model will need of memory.

Of thousands of models few are ever asked for, so most are looked at when they first are. The core
then decides about them as about any other.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

from llama_router.core.events import Event, LoadRequested, RequestArrived

_log = logging.getLogger(__name__)

# A header takes 20 ms; a disk that hangs must not keep anybody from the core's own deadlines.
LOOK_MAX_S = 5.0


class Foresight:
    """``unknown`` are the models that nobody has looked at; ``look`` takes one of them out of it.

    What was held goes to ``post`` in its order.
    """

    def __init__(
        self,
        unknown: AbstractSet[str],
        look: Callable[[str], Awaitable[None]],
        post: Callable[[Event], None],
    ) -> None:
        self._unknown = unknown
        self._look = look
        self._post = post
        self._held: dict[str, dict[int, RequestArrived | LoadRequested]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def holds(self, event: RequestArrived | LoadRequested) -> bool:
        """Take an event to post it later; return False, having done nothing, for a known model."""
        # Behind those that are held already, whatever is known by now.
        if event.model not in self._unknown and event.model not in self._held:
            return False
        held = self._held.get(event.model)
        if held is None:
            self._held[event.model] = held = {}
            task = asyncio.get_running_loop().create_task(
                self._find_out(event.model), name=f"look at {event.model}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        held[event.request_id] = event
        return True

    def drops(self, request_id: int) -> bool:
        """Forget an event that is held, whose sender is gone; return whether it was held."""
        return any(held.pop(request_id, None) is not None for held in self._held.values())

    def held_count(self, model: str) -> int:
        """Return how many events of a model are held."""
        return len(self._held.get(model, ()))

    def close(self) -> None:
        """Post nothing any more."""
        for task in self._tasks:
            task.cancel()
        self._held.clear()

    async def _find_out(self, model: str) -> None:
        await self.know(model)
        for event in self._held.pop(model, {}).values():
            self._post(event)

    async def know(self, model: str) -> None:
        """Have a model looked at if nobody has; return as well when that fails."""
        try:
            async with asyncio.timeout(LOOK_MAX_S):
                await self._look(model)
        except TimeoutError:
            _log.warning("%s: what it needs is not known after %g s", model, LOOK_MAX_S)
        except Exception:  # noqa: BLE001  # a mistake of ours must cost one estimate only
            _log.exception("fault while looking at %s", model)
