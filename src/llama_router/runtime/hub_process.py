"""The process that downloads, started when there is something for it to do.

Its pipes are read and written by threads: neither a slow disk there nor a long list of files holds
up the loop here. It ends when its stdin does, so also with a router that was killed.
"""

import asyncio
import contextlib
import itertools
import logging
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import IO, TypeVar

import msgspec

from llama_router.hub.addresses import Addresses
from llama_router.hub.environment import TOKEN_VARIABLES
from llama_router.hub.errors import HubError
from llama_router.hub.protocol import (
    LINE_MAX_BYTES,
    Answer,
    Ended,
    Failure,
    Message,
    Moved,
    Order,
    Settings,
)
from llama_router.runtime.helper import start_helper

_log = logging.getLogger(__name__)
_WORKER = "llama_router.hub.worker"
# Beyond the process's own patience with the hub.
_ANSWER_TIMEOUT_S = 600.0
_END_TIMEOUT_S = 5.0
# What a process that was killed needs to end, unless it waits for a disk.
_KILL_TIMEOUT_S = 1.0
_QUESTIONS_MAX_COUNT = 100
# It holds some 50 MB; the next one starts in a quarter of a second, with the settings of then.
_IDLE_S = 60.0
_T = TypeVar("_T")


class HubProcess:
    """One such process at a time. For one loop; ``close`` at the end.

    ``settings`` are asked for at each start, and by ``renew``. ``on_message`` gets what is said of
    downloads, ``on_end`` is called when the process has ended though nobody wanted it to.
    ``is_busy`` tells whether downloads are under way: else it is ended once nobody has asked for a
    while.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        env: Mapping[str, str],
        on_message: Callable[[Moved | Ended], object],
        on_end: Callable[[], object],
        is_busy: Callable[[], bool] = lambda: False,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._is_busy = is_busy
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._settings = settings
        # It gets the token from its settings; what inherits its environment need not have it.
        self._env = {name: value for name, value in env.items() if name not in TOKEN_VARIABLES}
        self._on_message = on_message
        self._on_end = on_end
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._running: _Running | None = None
        self._starting = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        """Whether there is a process now."""
        return self._running is not None

    async def ask(self, order: Callable[[int], Order], kind: type[_T]) -> _T:
        """Return the answer to a question that is made of its number. Raises HubError."""
        if len(self._waiting) >= _QUESTIONS_MAX_COUNT:
            raise HubError("busy", "too many questions to the hub at a time")
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self.send(order(number))
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                raw = await future
        except TimeoutError:
            raise HubError("unreachable", "nothing has come from the hub") from None
        finally:
            self._waiting.pop(number, None)
        return await asyncio.to_thread(msgspec.json.decode, raw, type=kind)

    async def renew(self) -> None:
        """Tell the process, if there is one, the settings of now. Raises HubError.

        They may be others than a moment ago though nobody says so: a token stands in a file.
        """
        async with self._starting:
            running = self._running
            if running is None:
                return
            settings = await asyncio.to_thread(self._settings)
            if settings != running.settings:
                Addresses(settings.endpoint, settings.allowed_hosts)
                running.settings = settings
                running.orders.put(msgspec.json.encode(settings))

    async def send(self, order: Order) -> None:
        """Give an order, to a new process if there is none. Raises HubError."""
        async with self._starting:
            if self._running is None:
                started = await self._start()
                if started.is_over:
                    raise HubError("internal_error", "the process for downloads ends at once")
                self._running = started
            self._running.orders.put(msgspec.json.encode(order))
            self._look_again_later()

    def _look_again_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._idle_s, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._running is None:
            return
        if self._is_used:
            self._look_again_later()
        else:
            self._end_soon(self._running)

    @property
    def _is_used(self) -> bool:
        return bool(self._waiting) or self._is_busy() or self._starting.locked()

    def _end_soon(self, running: "_Running") -> None:
        # At once: an order given before the task below begins must not go to what is ending.
        self._running = None
        task = asyncio.get_running_loop().create_task(
            asyncio.to_thread(running.end), name="end hub process"
        )
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End the process; what it had under way is kept on the disk."""
        if self._idle is not None:
            self._idle.cancel()
        async with self._starting:
            running, self._running = self._running, None
        if self._ending:
            await asyncio.wait(self._ending)
        if running is not None:
            await asyncio.to_thread(running.end)
        self._fail_waiting("the router is ending")

    async def _start(self) -> "_Running":
        loop = asyncio.get_running_loop()

        def post(running: _Running, message: Message | None) -> None:
            # The loop is closed when the router has ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._take, running, message)

        def start() -> _Running:
            # Reads the token's file, and forks: for a thread.
            settings = self._settings()
            # The process could only end at once.
            Addresses(settings.endpoint, settings.allowed_hosts)
            return _Running(settings, self._env, post)

        try:
            return await asyncio.to_thread(start)
        except OSError as error:
            raise HubError(
                "internal_error", f"the process for downloads cannot be started: {error}"
            ) from None

    def _take(self, running: "_Running", message: Message | None) -> None:
        match message:
            case Moved() | Ended():
                self._on_message(message)
            case Answer():
                self._settle(message.number, message.result)
            case Failure():
                error = HubError(message.code, message.message)  # type: ignore[arg-type]  # its own codes
                self._settle(message.number, error)
            case None:
                running.is_over = True
                if running is not self._running:
                    return
                self._running = None
                _log.error("the process for downloads has ended")
                self._fail_waiting("the process for downloads has ended")
                self._on_end()

    def _settle(self, number: int, result: msgspec.Raw | HubError) -> None:
        future = self._waiting.get(number)
        if future is None or future.done():
            return
        if isinstance(result, HubError):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _fail_waiting(self, reason: str) -> None:
        for number in list(self._waiting):
            self._settle(number, HubError("internal_error", reason))


class _Running:
    """One process with its two threads. ``post`` gets itself and what it says, at last None."""

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        post: Callable[["_Running", Message | None], object],
    ) -> None:
        self.orders: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process = start_helper(_WORKER, env=env, is_mute=False)
        self._post = post
        self.settings = settings
        self.is_over = False
        self.orders.put(msgspec.json.encode(settings))
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise OSError("it has no pipes")
        self._threads = [
            threading.Thread(target=self._write, args=(stdin,), name="hub orders", daemon=True),
            threading.Thread(target=self._read, args=(stdout,), name="hub messages", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Have it end, and wait for that, but not for a disk that does not answer. Blocks."""
        self.orders.put(None)
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(_KILL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                return
        for thread in self._threads:
            thread.join(_END_TIMEOUT_S)

    def _write(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError), pipe:
            while (order := self.orders.get()) is not None:
                pipe.write(order + b"\n")
                pipe.flush()

    def _read(self, pipe: IO[bytes]) -> None:
        decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
        with pipe:
            while line := pipe.readline(LINE_MAX_BYTES):
                try:
                    message = decoder.decode(line)
                except msgspec.DecodeError:
                    _log.error("the process for downloads says what makes no sense")
                    break
                self._post(self, message)
        self.orders.put(None)
        self._process.wait()
        self._post(self, None)
