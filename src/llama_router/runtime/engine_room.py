"""Carries out what the core wants of engines, and tells it what became of them."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from llama_router.core.events import (
    AddressStolen,
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    ExitCause,
    ModelInspected,
    SpawnFailed,
)
from llama_router.engines.kinds import CommandError, build_launch, purpose_arguments
from llama_router.engines.launch import LaunchSpec
from llama_router.engines.logs import LogStore
from llama_router.engines.parameter_tables import ParameterTables
from llama_router.engines.ports import NoFreePortError, PortAllocator
from llama_router.engines.readiness import is_healthy
from llama_router.engines.supervisor import Supervisor
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.inspection import problem_of
from llama_router.runtime.roster import Roster, RosterModel

_log = logging.getLogger(__name__)
_engine_log = logging.getLogger("llama_router.engine")

# Engines serve this machine only, whatever address the router has.
ENGINE_HOST = "127.0.0.1"
# Between two reports of elapsed against expected loading time: as llama-server paces its own.
_ESTIMATE_INTERVAL_S = 0.2
# An estimate never says that a load is done.
_MAX_ESTIMATE = 0.99
# A busy engine may miss one probe; a hanging one misses all. Each has its own timeout.
_DOUBT_PROBE_COUNT = 3
# Between them: three that are refused at once would be one observation.
_DOUBT_PAUSE_S = 0.5
# Between an inspection and the spawn that it was for, if nobody had anything to finish first: the
# files are not looked at a second time.
_INSPECTION_HOLDS_S = 1.0
_SILENT = "was silent and does not answer its health check"


class EngineWatcher(Protocol):
    """Told of engines from when they are ready until nothing of them is left."""

    def ready(self, model: str, generation: int, load_s: float) -> None:
        """The engine answers, after a load of so many seconds; the core has been told."""

    def gone(self, model: str, generation: int) -> None:
        """Nothing is left of the engine, or nothing came of it; the core has been told."""

    def environment_of(self, model: str) -> Mapping[str, str]:
        """What the engine is to have in its environment beyond everybody's."""


class _Loading:
    """A load under way."""

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.reports_itself = False


class _Engine:
    """An engine from spawn to reap."""

    def __init__(self, spec: LaunchSpec, port: int, upstream: Upstream, loading: _Loading) -> None:
        self.spec = spec
        # The one that was given out for it, whether it listens there or not; 0 for none.
        self.port = port
        self.upstream = upstream
        self.loading: _Loading | None = loading
        self.doubt: asyncio.Task[None] | None = None

    def end_doubt(self) -> None:
        if self.doubt is not None:
            self.doubt.cancel()
            self.doubt = None


class EngineRoom:
    """Implements EngineListener for the supervisor. ``post`` takes events for the core."""

    def __init__(
        self,
        *,
        roster: Roster,
        logs: LogStore,
        state_dir: Path,
        base_port: int,
        connect_timeout_s: float,
        env: Mapping[str, str],
        found_llama_server: Path | None,
        post: Callable[[Event], None],
    ) -> None:
        self.roster = roster
        self.supervisor = Supervisor(self, logs, state_dir)
        self._logs = logs
        self._ports = PortAllocator(base_port, ENGINE_HOST)
        self._connect_timeout_s = connect_timeout_s
        self._env = env
        self._found_llama_server = found_llama_server
        self.parameters = ParameterTables(env, found_llama_server)
        self._post = post
        self.watcher: EngineWatcher | None = None
        self._loop = asyncio.get_running_loop()
        self._inspections: set[asyncio.Task[None]] = set()
        # When models were last found fit to be started.
        self._inspected_s: dict[str, float] = {}
        self._engines: dict[int, _Engine] = {}
        # Spawns that still look at their model's file.
        self._looks: dict[int, tuple[str, asyncio.Task[None]]] = {}
        # How long the last load of each model took, for engines that report no progress.
        self._load_times_s: dict[str, float] = {}
        self._estimates: asyncio.TimerHandle | None = None

    def inherit(self, env: Mapping[str, str]) -> None:
        """Give engines that start from now on this environment."""
        self._env = env
        self.parameters.inherit(env)

    # --- commands

    def spawn(self, model: str, generation: int) -> None:
        """Start the engine of a model; ``spawned`` or ``spawn_failed`` follows, never at once."""
        entry = self.roster[model]
        path = entry.found.path
        looked_s = self._inspected_s.pop(model, float("-inf"))
        is_known = path is None or self._loop.time() < looked_s + _INSPECTION_HOLDS_S
        if is_known and self._knows_parameters(entry):
            self._spawn(model, generation)
            return
        look = self._loop.create_task(
            self._look_and_spawn(model, generation, path), name=f"look-{model}-{generation}"
        )
        self._looks[generation] = (model, look)

    def terminate(self, generation: int) -> None:
        """Ask an engine to end in its own way."""
        if not self._withdraw(generation):
            self.supervisor.terminate(generation)

    def kill(self, generation: int) -> None:
        """End an engine's whole process tree now."""
        if not self._withdraw(generation):
            self.supervisor.kill(generation)

    def doubt(self, model: str, generation: int) -> None:
        """Look whether a silent engine is alive, and report it as ended when it is not."""
        engine = self._engines.get(generation)
        if engine is not None and engine.loading is None and engine.doubt is None:
            engine.doubt = self._loop.create_task(
                self._examine(engine), name=f"doubt-{model}-{generation}"
            )

    def inspect(self, model: str, inspection: int) -> None:
        """Look whether a model's engine could be started; ``ModelInspected`` follows."""
        work = self._inspect(model, inspection)
        task = self._loop.create_task(work, name=f"inspect-{model}-{inspection}")
        self._inspections.add(task)
        task.add_done_callback(self._inspections.discard)

    async def _inspect(self, model: str, inspection: int) -> None:
        try:
            await self._learn_parameters(self.roster[model])
            spec = self._launch(model, generation=0, port=0)
            entry = self.roster[model]
            problem = self.roster.silence_of(entry)
            problem = problem or await asyncio.to_thread(problem_of, entry, spec)
        except (CommandError, OSError) as error:
            problem = str(error)
        if problem:
            self._note(model, problem)
        elif model in self.roster:
            self._inspected_s[model] = self._loop.time()
        self._post(ModelInspected(model, inspection, problem))

    async def _look_and_spawn(self, model: str, generation: int, path: Path | None) -> None:
        """Look again at a file that may have gone since the catalogue was made.

        A folder will do: engines other than llama.cpp's have models in folders.
        """
        problem = self.roster.silence_of(self.roster[model])
        if not problem and path is not None and not await asyncio.to_thread(_exists, path):
            problem = f"the model's file {path} is gone"
        await self._learn_parameters(self.roster[model])
        del self._looks[generation]
        if problem:
            self._refuse(model, generation, problem)
        else:
            self._spawn(model, generation)

    def _withdraw(self, generation: int) -> bool:
        """Give up a spawn that has not come to a process yet; tell whether there was one."""
        model, look = self._looks.pop(generation, ("", None))
        if look is None:
            return False
        # It takes no step any more, whatever the disk does.
        look.cancel()
        self._refuse(model, generation, "stopped before it was started")
        return True

    def _refuse(self, model: str, generation: int, reason: str) -> None:
        self._note(model, reason)
        self._loop.call_soon(self._post, SpawnFailed(model, generation, reason))

    def _note(self, model: str, text: str) -> None:
        """Log what is no engine's, of a model that may have left the config meanwhile."""
        self._logs.append(model, text)
        if model not in self.roster:
            self.forget(model)

    async def _examine(self, engine: _Engine) -> None:
        spec = engine.spec
        for number in range(_DOUBT_PROBE_COUNT):
            if number:
                await asyncio.sleep(_DOUBT_PAUSE_S)
            if await is_healthy(spec.host, spec.port, spec.health_path):
                engine.doubt = None
                return
        engine.doubt = None
        self._logs.append(spec.model, _SILENT)
        self.exited(spec.model, spec.generation, _SILENT, ExitCause.EXITED)

    def _launch(self, model: str, generation: int, port: int) -> LaunchSpec:
        """Fill in a model's command. Raises CommandError and OSError."""
        entry = self.roster[model]
        extra = self.watcher.environment_of(model) if self.watcher is not None else {}
        return build_launch(
            entry.template,
            entry.facts,
            generation=generation,
            host=ENGINE_HOST,
            port=port,
            base_env={**self._env, **extra},
            found_llama_server=self._found_llama_server,
            table=self.parameters.known(entry.template.command),
        )

    def _knows_parameters(self, entry: RosterModel) -> bool:
        template = entry.template
        return not template.parameters or self.parameters.known(template.command) is not None

    async def _learn_parameters(self, entry: RosterModel) -> None:
        """Ask the engine which options it has, if it is to be given any."""
        if entry.template.parameters:
            await self.parameters.of(entry.template.command)

    def _spawn(self, model: str, generation: int) -> None:
        port = 0
        entry = self.roster[model]
        try:
            if entry.template.needs_port:
                port = self._ports.acquire(self.roster.fixed_ports)
            spec = self._launch(model, generation, port)
        except (CommandError, NoFreePortError, OSError) as error:
            self._ports.release(port)
            self._refuse(model, generation, str(error))
            return
        connect_timeout_s = entry.entry.connection_timeout_s
        upstream = Upstream(
            host=spec.host,
            port=spec.port,
            path_prefix=spec.path_prefix.encode("ascii"),
            connect_timeout_s=(
                self._connect_timeout_s if connect_timeout_s is None else connect_timeout_s
            ),
        )
        if purpose := purpose_arguments(entry.template, entry.facts):
            said = " ".join(purpose)
            self._logs.append(model, f"{said} was added to the default command: its file asks so")
        loading = _Loading(self._loop.time())
        self._engines[generation] = _Engine(spec, port, upstream, loading)
        self.supervisor.spawn(spec)
        if self._estimates is None:
            self._estimates = self._loop.call_later(_ESTIMATE_INTERVAL_S, self._estimate)

    def pid(self, generation: int) -> int | None:
        """Return the pid of an engine's main process; None when there is none (any more)."""
        return self.supervisor.pid(generation)

    def pids(self) -> list[int]:
        """Return the main processes of all engines that are there, in whatever state."""
        pids = map(self.supervisor.pid, self._engines)
        return [pid for pid in pids if pid is not None]

    def upstream(self, generation: int) -> Upstream:
        """Return the address of a running engine."""
        return self._engines[generation].upstream

    def prune(self) -> None:
        """Close connections that have been idle for too long."""
        for engine in self._engines.values():
            engine.upstream.prune()

    def forget(self, model: str) -> None:
        """Keep nothing of a model that has left the config, once its last engine has gone, too."""
        if any(engine.spec.model == model for engine in self._engines.values()):
            return
        self._logs.forget(model)
        self._load_times_s.pop(model, None)
        self._inspected_s.pop(model, None)

    async def close(self) -> None:
        """End what is left."""
        if self._estimates is not None:
            self._estimates.cancel()
        for generation in list(self._looks):
            self._withdraw(generation)
        for task in self._inspections:
            task.cancel()
        for engine in self._engines.values():
            engine.end_doubt()
        await self.supervisor.close()

    # --- EngineListener

    def spawned(self, model: str, generation: int) -> None:
        """See EngineListener."""
        self._post(EngineSpawned(model, generation))

    def spawn_failed(self, model: str, generation: int, reason: str) -> None:
        """See EngineListener."""
        self._forget(generation)
        self._post(SpawnFailed(model, generation, reason))
        if self.watcher is not None:
            self.watcher.gone(model, generation)

    def progress(self, model: str, generation: int, fraction: float) -> None:
        """See EngineListener."""
        engine = self._engines.get(generation)
        if engine is not None and engine.loading is not None:
            engine.loading.reports_itself = True
        self._post(EngineProgress(model, generation, fraction))

    def ready(self, model: str, generation: int) -> None:
        """See EngineListener."""
        engine = self._engines.get(generation)
        took_s = None
        if engine is not None and engine.loading is not None:
            took_s = self._loop.time() - engine.loading.started_s
            self._load_times_s[model] = took_s
            engine.loading = None
            _log.info("%s is ready after %.3f s", model, took_s)
        self._post(EngineReady(model, generation))
        if self.watcher is not None and took_s is not None:
            self.watcher.ready(model, generation, took_s)

    def exited(self, model: str, generation: int, reason: str, cause: ExitCause) -> None:
        """See EngineListener."""
        engine = self._engines.get(generation)
        if engine is not None:
            engine.loading = None
            engine.end_doubt()
            engine.upstream.close()
        self._post(EngineExited(model, generation, reason, cause))

    def reaped(self, model: str, generation: int) -> None:
        """See EngineListener."""
        self._forget(generation)
        self._post(EngineReaped(model, generation))
        if self.watcher is not None:
            self.watcher.gone(model, generation)

    def address_stolen(self, model: str, generation: int) -> None:
        """See EngineListener."""
        self._post(AddressStolen(model, generation))

    def output(self, model: str, stream: str, line: str) -> None:  # noqa: ARG002
        """See EngineListener."""
        _engine_log.info("[%s] %s", model, line)

    def _forget(self, generation: int) -> None:
        engine = self._engines.pop(generation, None)
        if engine is not None:
            engine.end_doubt()
            engine.upstream.close()
            self._ports.release(engine.port)
            if engine.spec.model not in self.roster:
                self.forget(engine.spec.model)

    def _estimate(self) -> None:
        """Report elapsed against expected time for loads that say nothing themselves."""
        self._estimates = None
        is_any_loading = False
        for generation, engine in list(self._engines.items()):
            loading = engine.loading
            if loading is None:
                continue
            is_any_loading = True
            expected_s = self._load_times_s.get(engine.spec.model)
            if expected_s and not loading.reports_itself:
                elapsed_s = self._loop.time() - loading.started_s
                fraction = min(elapsed_s / expected_s, _MAX_ESTIMATE)
                self._post(EngineProgress(engine.spec.model, generation, fraction))
        if is_any_loading:
            self._estimates = self._loop.call_later(_ESTIMATE_INTERVAL_S, self._estimate)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # There is something; the engine says best what is wrong with it.
        return True
