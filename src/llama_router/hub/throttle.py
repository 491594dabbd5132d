"""One cap on what all downloads together take of the line."""

import asyncio
import contextlib

# How much may come at once after a pause.
_BURST_S = 0.5
_PORTION_BYTES = 256 * 1024
_PORTION_MIN_BYTES = 1024


class Throttle:
    """A token bucket of bytes. ``rate_bytes_per_s`` of 0 is no cap; another holds at once."""

    def __init__(self, rate_bytes_per_s: int = 0) -> None:
        self._rate_bytes_per_s = rate_bytes_per_s
        self._allowed_bytes = 0.0
        self._seen_at: float | None = None
        self._changed = asyncio.Event()

    @property
    def rate_bytes_per_s(self) -> int:
        """What all downloads together may take."""
        return self._rate_bytes_per_s

    @rate_bytes_per_s.setter
    def rate_bytes_per_s(self, rate_bytes_per_s: int) -> None:
        if rate_bytes_per_s == self._rate_bytes_per_s:
            return
        self._rate_bytes_per_s = rate_bytes_per_s
        # What is owed was reckoned by another rate.
        self._allowed_bytes, self._seen_at = 0.0, None
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def portion_bytes(self) -> int:
        """How much to take at a time, so that nobody waits long for one's turn."""
        if self.rate_bytes_per_s <= 0:
            return _PORTION_BYTES
        fitting_bytes = int(self.rate_bytes_per_s * _BURST_S / 2)
        return max(_PORTION_MIN_BYTES, min(_PORTION_BYTES, fitting_bytes))

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes that have come were allowed to.

        They are booked at once: who comes meanwhile waits behind them.
        """
        if self.rate_bytes_per_s <= 0:
            return
        now = asyncio.get_running_loop().time()
        since_s = 0.0 if self._seen_at is None else now - self._seen_at
        self._seen_at = now
        most_bytes = self.rate_bytes_per_s * _BURST_S
        self._allowed_bytes = min(
            most_bytes, self._allowed_bytes + since_s * self.rate_bytes_per_s
        ) - float(size_bytes)
        if self._allowed_bytes < 0:
            wait_s = -self._allowed_bytes / self.rate_bytes_per_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
