"""Tasks that belong to one owner and end with it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

_log = logging.getLogger(__name__)


class OwnTasks:
    """``on_fault`` is called when one of them has failed, which it never should."""

    __slots__ = ("_on_fault", "_tasks")

    def __init__(self, on_fault: Callable[[], object]) -> None:
        self._on_fault = on_fault
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start one."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._on_done)
        return task

    def cancel(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("fault in '%s'", task.get_name(), exc_info=error)
            self._on_fault()
