"""What is posted to the core, kept, and waited for."""

import asyncio

from llama_router.core.events import Event

DEADLINE_S = 30.0


class CoreEvents:
    """Takes events in the core's place."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self._news = asyncio.Event()

    def post(self, event: Event) -> None:
        self.all.append(event)
        self._news.set()

    async def first(self, kind: type[Event], generation: int | None = None) -> Event:
        """Give the first event of a kind, of one engine if its generation is given."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for event in self.all:
                    of = getattr(event, "generation", 0)
                    if isinstance(event, kind) and generation in (None, of):
                        return event
                self._news.clear()
                await self._news.wait()
