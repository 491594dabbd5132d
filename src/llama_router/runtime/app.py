"""The router from start to end: brings the rooms up in their order and takes them down again."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_router import __version__
from llama_router.config.problems import ConfigError
from llama_router.config.schema import Config, RouterSettings
from llama_router.control.secret import SECRET_HEADER
from llama_router.control.thread import ControlThread
from llama_router.core.events import ShutdownForced, ShutdownRequested
from llama_router.core.machine import Core
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.engines.kinds import find_llama_server
from llama_router.engines.logs import LogStore
from llama_router.proxy.errors import ModelNotFoundError, RequestError
from llama_router.proxy.server import ProxyServer, Services
from llama_router.proxy.upstream import Upstream
from llama_router.runtime import descriptors, signals
from llama_router.runtime import machine as machines
from llama_router.runtime.applying import core_settings
from llama_router.runtime.appraisal import Appraiser
from llama_router.runtime.bridge import Bridge
from llama_router.runtime.config_file import ConfigSource, FixedConfig, ReadError, Reading
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.foresight import Foresight
from llama_router.runtime.keys import Keys
from llama_router.runtime.machine import Machine
from llama_router.runtime.memory import Memory
from llama_router.runtime.own_secrets import engine_base_environment
from llama_router.runtime.parameter_doubts import warn_of_parameters
from llama_router.runtime.plane import guard_of, plane_settings
from llama_router.runtime.roster import Roster
from llama_router.runtime.upkeep import Upkeep
from llama_router.store import STORE_FILE_NAME
from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyFileError
from llama_router.store.store import Store, StoreError

_log = logging.getLogger(__name__)

# The control plane's thread must not keep the data plane waiting: an echo beside a busy thread has
# a p99 of 15.7 ms at Python's default of 5 ms, and of 1.2 ms at this.
SWITCH_INTERVAL_S = 0.0005
# Requests leave few cycles behind: of the CPU time of a short stream, collecting takes 4 % at the
# default of 700 allocations, and 0.5 % at this. A collection holds up all threads: of so many young
# objects for less than a millisecond, of those that have survived it for tens, so these have their
# turn after a million only. In Python 3.14.0 to 3.14.4 each collection takes a share of the old
# objects along instead, which the second figure makes a small one.
_GC_THRESHOLDS = (5_000, 200, 50)
# Until the last engine is reaped, after the last request has been cut.
_REAP_TIMEOUT_S = 15.0
_CONTROL_TIMEOUT_S = 60.0
# The control plane ends its answers at once; its thread may have to wait for the interpreter.
_OWN_END_TIMEOUT_S = 2.0
# In a message; there may be hundreds.
_NAMED_COUNT = 8


class StartError(Exception):
    """The router cannot start; the text says why and what to do."""


class UnknownStartupModelError(StartError):
    """The config's startup_model is not the name of one model."""


class Router:
    """One running router. ``start``, then ``wait``, then ``close``; or ``run`` for all of it."""

    def __init__(
        self,
        config: Config,
        *,
        state_dir: Path,
        env: Mapping[str, str] | None = None,
        home: Path | None = None,
        router_executable: Path | None = None,
        source: ConfigSource | None = None,
        reading: Reading | None = None,
        import_dirs: Sequence[Path] = (),
        has_caches: bool = True,
    ) -> None:
        """``source`` is where the config is from, ``reading`` what it said; absent: nowhere.

        The models below ``import_dirs`` become entries of the config. Without ``has_caches``
        models are looked for in the config's own folders only.
        """
        self.config = config
        self._source = source or FixedConfig(config)
        self._reading = reading or Reading(config)
        self._state_dir = state_dir
        self._env = dict(os.environ if env is None else env)
        self._home = Path.home() if home is None else home
        self._executable = router_executable or Path(sys.argv[0]).absolute()
        self._import_dirs = import_dirs
        self._has_caches = has_caches
        self._end_requested = asyncio.Event()
        self._signal_count = 0
        self._is_up = False
        # A SIGHUP came during the start.
        self._is_reload_due = False
        self._flushing: asyncio.Task[None] | None = None
        self.found_llama_server: Path | None = None
        self.roster: Roster
        self.desk: Desk
        self.services: Services
        self._keys: Keys
        self._limit_count: int
        self._server: ProxyServer | None = None
        self._room: EngineRoom | None = None
        self._control: ControlThread | None = None
        self._memory: Memory | None = None
        self._opening: asyncio.Task[Store | None] | None = None
        self._aside_tasks: list[asyncio.Task[None]] = []
        self._upkeep: Upkeep | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [] if self._server is None else self._server.addresses

    async def start(self) -> bool:
        """Bring everything up and begin to accept; return whether that was still wanted.

        It is not when the end is requested meanwhile. Raises BindError, StartError or HostError.
        Unless it returns True, nothing is left running.
        """
        starting = asyncio.create_task(self._start(), name="start")
        ending = asyncio.create_task(self._end_requested.wait(), name="end requested")
        try:
            await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                self._is_up = True
                if self._is_reload_due:
                    self._request_reload()
        finally:
            starting.cancel()
            ending.cancel()
            await asyncio.wait((starting, ending))
            if not self._is_up:
                await self.close()
        return self._is_up

    async def _start(self) -> None:
        settings = self.config.router
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.set_threshold(*_GC_THRESHOLDS)
        self._limit_count = descriptors.raise_limit()
        control_ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.desk = desk = Desk()
        self._keys = keys = await self._open_keys(settings)
        self._upkeep = upkeep = Upkeep(
            source=self._source,
            reading=self._reading,
            desk=desk,
            keys=keys,
            state_dir=self._state_dir,
            env=self._env,
            home=self._home,
            has_caches=self._has_caches,
        )
        self.services = services = Services(
            gate=desk,
            guard=guard_of(settings, keys.rules()),
            max_connection_count=descriptors.client_count(
                self._limit_count, settings.max_connections
            ),
            **plane_settings(settings),
        )
        # The address comes first: a second router must find out before it starts anything.
        self._server = server = ProxyServer(services)
        server.bind(settings.host, settings.port)
        logs = LogStore()
        bridge = Bridge(desk, logs, services, server)
        bridge.patterns_of = keys.patterns_of
        bridge.problem_of_config = upkeep.config_problem
        keys.watch(services)
        try:
            self._control = control = ControlThread(
                bridge,
                version=__version__,
                on_ready=lambda: loop.call_soon_threadsafe(control_ready.set),
                **upkeep.facades,
            )
        except OSError as error:
            raise StartError(f"no place for the control plane's socket: {error}") from None
        desk.control = Upstream(
            host="" if control.unix_path else "127.0.0.1",
            port=control.port,
            unix_path=control.unix_path,
            connect_timeout_s=_CONTROL_TIMEOUT_S,
            extra_head=SECRET_HEADER + b": " + control.secret.encode() + b"\r\n",
            ready=control_ready,
        )
        control.start()
        room = await self._bring_up_engines(bridge, logs, upkeep)
        server.add_sweeper(room.prune)
        server.add_sweeper(upkeep.peers.prune)
        await self._import(upkeep)
        await self._load_startup_model()
        if self._memory is not None:
            _log.info("%s", self._memory.in_words())
        gc.collect()
        gc.freeze()
        server.start()
        await upkeep.start()
        doubts = warn_of_parameters(self.config, room.parameters, upkeep.changes)
        self._aside_tasks = [
            loop.create_task(doubts, name="check parameters"),
            *(
                loop.create_task(self._preload(name), name=f"preload-{name}")
                for name in settings.preload
            ),
        ]

    async def _bring_up_engines(self, bridge: Bridge, logs: LogStore, upkeep: Upkeep) -> EngineRoom:
        """Make everything that engines need, and the core that decides about them."""
        settings, desk = self.config.router, self.desk
        self.found_llama_server = await asyncio.to_thread(
            find_llama_server, self._executable, search_path=self._env.get("PATH")
        )
        self.roster, store = await self._look_around(upkeep)
        bridge.store = store if settings.history else None
        self._room = room = EngineRoom(
            roster=self.roster,
            logs=logs,
            state_dir=self._state_dir,
            base_port=settings.base_port,
            connect_timeout_s=settings.connection_timeout_s,
            env=self._inherited(),
            found_llama_server=self.found_llama_server,
            post=desk.post,
        )
        for ended in await room.supervisor.start():
            _log.warning("left over from an earlier router and ended: %s", ended)
        machine = Machine()
        if settings.memory_aware:
            # Now that nothing is held any more by what is ended.
            machine = await asyncio.to_thread(
                machines.look_around, self.found_llama_server, settings.memory
            )
        bridge.total_bytes = machine.total_bytes
        self._memory = memory = Memory(
            roster=self.roster,
            settings=settings,
            machine=machine,
            appraiser=Appraiser(
                machine=machine,
                env=self._env,
                found_llama_server=self.found_llama_server,
                remembered=store.footprints if store is not None else dict,
            ),
            store=store,
            post=desk.post,
            engines=room,
        )
        room.watcher = memory
        core = Core(
            await memory.appraise(),
            policy=BenefitOrder() if settings.policy == "benefit" else ArrivalOrder(is_strict=True),
            settings=core_settings(self.config, self.roster, memory.budgets),
        )
        upkeep.peers.follow(self.config)
        desk.open(core, self.roster, room, upkeep.peers)
        memory.open(core)
        desk.foresight = Foresight(memory.unknown, memory.know, desk.post)
        upkeep.open(memory, self.roster, [self._reconfigure])
        if settings.history and store is not None:
            desk.record = store.add_request
        return room

    async def _look_around(self, upkeep: Upkeep) -> tuple[Roster, Store | None]:
        """Find the models, and what an earlier router has remembered."""
        # Closed at the end even if the start does not come to its own.
        self._opening = asyncio.create_task(
            asyncio.to_thread(_open_store, self._state_dir), name="open store"
        )
        return await asyncio.gather(upkeep.take_stock(self.config), asyncio.shield(self._opening))

    def _reconfigure(self, config: Config) -> None:
        """Follow what of the router's settings can change while it runs."""
        self.config, settings = config, config.router
        logging.getLogger().setLevel(settings.log_level.upper())
        self.services.max_connection_count = descriptors.client_count(
            self._limit_count, settings.max_connections
        )
        self._keys.configure(settings)
        if self._room is not None:
            self._room.inherit(self._inherited())
        self._apply_keys()

    def _inherited(self) -> dict[str, str]:
        """Return what of the environment engines get: no secret of the config or the key file."""
        digests = frozenset(rule.digest for rule in self._keys.rules())
        return engine_base_environment(self._env, self.config, digests)

    async def _open_keys(self, settings: RouterSettings) -> Keys:
        try:
            file = await asyncio.to_thread(KeyFile, self._state_dir / KEYS_FILE_NAME)
        except KeyFileError as error:
            raise StartError(str(error)) from None
        keys = Keys(file, settings, self._apply_keys)
        for doubt in keys.doubts():
            _log.warning("%s", doubt)
        return keys

    def _apply_keys(self) -> None:
        """Let the keys, and with them the settings, hold that there are by now."""
        settings = self.config.router
        guard = guard_of(settings, self._keys.rules())
        self.services.reconfigure(guard=guard, **plane_settings(settings))

    async def _import(self, upkeep: Upkeep) -> None:
        for folder in self._import_dirs:
            try:
                report = await upkeep.changes.import_dir(str(folder))
            except (ConfigError, ReadError) as error:
                raise StartError(f"--import-dir: {error}") from None
            for warning in report.warnings:
                _log.warning("%s: %s", folder, warning)

    async def _preload(self, name: str) -> None:
        """Load a model for those who will come; whatever goes wrong, the router serves."""
        try:
            await self.desk.load(self.desk.resolve(name).model)
        except RequestError as error:
            _log.warning("preload: model '%s' is not loaded: %s", name, error.message)

    async def _load_startup_model(self) -> None:
        name = self.config.startup_model
        if not name:
            return
        try:
            found = self.desk.find(name)
        except ModelNotFoundError:
            known = ", ".join(model.found.id for model in self.roster.models[:_NAMED_COUNT])
            raise UnknownStartupModelError(
                f"'{name}' is none of the models found"
                + (f", which begin with: {known}" if known else ": there are none")
            ) from None
        except RequestError as error:
            raise UnknownStartupModelError(error.message) from None
        try:
            await self.desk.load(self.desk.resolve(found.id).model)
        except RequestError as error:
            raise StartError(f"startup_model '{name}': {error.message}") from None

    def request_end(self) -> None:
        """End in good order; asked a second time, at once."""
        self._signal_count += 1
        if self._signal_count == 1:
            under_way = self.desk.waiter_count if self._is_up else 0
            _log.info(
                "ending, after up to %g s for %d requests under way; a second signal ends at once",
                self.config.router.shutdown_deadline_s,
                under_way,
            )
            self._end_requested.set()
        elif self._is_up:
            _log.warning("ending at once")
            self.desk.post(ShutdownForced())
            if self._flushing is not None:
                self._flushing.cancel()

    async def wait(self) -> None:
        """Serve until the end is requested, then drain, stop every engine and send what is left."""
        loop = asyncio.get_running_loop()
        await self._end_requested.wait()
        if self._upkeep is not None:
            self._upkeep.changes.stop()
        if self._server is not None:
            await self._server.stop_accepting()
        deadline_s = self.config.router.shutdown_deadline_s
        deadline = loop.time() + deadline_s
        self.desk.post(ShutdownRequested(deadline_s))
        try:
            async with asyncio.timeout(deadline_s + _REAP_TIMEOUT_S):
                if self._upkeep is not None:
                    await self._upkeep.peers.drain(deadline_s)
                await self.desk.shut_down.wait()
        except TimeoutError:
            _log.error("engines are still there though they were killed; leaving them behind")
        if self._control is not None and self._server is not None:
            # Who follows a log or the events gets the last of it, and a proper end.
            self._control.end_streams()
            await self._server.finish_own(_OWN_END_TIMEOUT_S)
        if self._server is not None and self._signal_count <= 1:
            # Slow clients are still sent answers that their engines gave in full.
            flush = self._server.flush(deadline - loop.time())
            self._flushing = loop.create_task(flush, name="flush")
            await asyncio.wait((self._flushing,))

    async def close(self) -> None:
        """Take down whatever is up. Idempotent."""
        for task in self._aside_tasks:
            task.cancel()
        if self._upkeep is not None:
            await self._upkeep.close()
            await self._keys.close()
            self._upkeep = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if hasattr(self, "desk"):
            self.desk.close()
        if self._room is not None:
            await self._room.close()
            self._room = None
        await self._close_planes()
        if self._opening is not None:
            store, self._opening = await self._opening, None
            if store is not None:
                await asyncio.to_thread(store.close)

    async def _close_planes(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None
        if self._control is not None:
            if hasattr(self.desk, "control"):
                self.desk.control.close()
            await asyncio.to_thread(self._control.close)
            self._control = None

    def install_signal_handlers(self) -> None:
        """End on SIGINT, SIGTERM and a closed terminal; reload on any other SIGHUP."""
        signals.install(end=self.request_end, reload=self._request_reload)

    def _request_reload(self) -> None:
        if self._end_requested.is_set():
            return
        if self._upkeep is not None and self._is_up:
            self._upkeep.changes.reload_soon("SIGHUP")
        else:
            _log.info("SIGHUP: the config is read again once the router has started")
            self._is_reload_due = True


def _open_store(folder: Path) -> Store | None:
    try:
        return Store.open(folder / STORE_FILE_NAME)
    except StoreError as error:
        _log.warning("%s", error)
        return None
