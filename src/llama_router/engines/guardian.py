"""The guardian: a small process, the parent of every engine, so that none outlives the router.

It is started by path, ``python -I -S guardian.py <socket fd> <router pid> <cookie> <state dir>``,
uses the standard library only, has one thread, and talks to the router over the socket
(:mod:`llama_router.engines.wire`). Being small and alone in its process, it can fork safely and
cheaply: an engine costs no interpreter start.

Requests: ``spawn`` (with the ends of three pipes), ``terminate``, ``kill``, ``owner``.
Events: ``hello``, ``spawned``, ``failed``, ``exited``, ``reaped``, ``owner``.

When the router goes away, its side of the socket closes: every engine is terminated and, a second
later, killed.
"""

import contextlib
import errno
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path

# Run by path and isolated, Python knows neither the package nor its folder. Appended, not inserted:
# the folder may be site-packages, which must not hide the standard library.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from llama_router.engines import fork_exec, record, wire
from llama_router.engines.platform import process_table
from llama_router.engines.platform.interface import Tree

# Tells type checkers on other platforms to skip what follows.
assert sys.platform != "win32"  # noqa: S101

# Between the router's end and SIGKILL, and until the guardian gives up on what cannot be killed
# (uninterruptible sleep in a driver). Together below the 2 s within which all must be gone.
ORPHAN_GRACE_S = 1.0
ORPHAN_DEADLINE_S = 1.9

# How soon to look again for what a killed tree has left; doubled each time.
SWEEP_FIRST_S = 0.002
SWEEP_LAST_S = 0.1
# A process whose owner cannot be told is waited for so long: far longer than any exec takes.
UNDECIDED_MAX_S = 5.0

# Three descriptors per spawn; more spawns than this at once wait in the socket.
MAX_RECEIVED_FDS = 3 * 32
RECEIVE_BYTES = 64 * 1024


class _Engine:
    """One engine, from fork until nothing is left of it."""

    def __init__(self, generation: int, process: record.ProcessRecord, mark: bytes) -> None:
        self.generation = generation
        self.process = process
        self.mark = mark
        self.is_reaped = False
        self.reaped_at = 0.0
        self.sweep_at = 0.0
        self.sweep_delay_s = SWEEP_FIRST_S

    @property
    def pid(self) -> int:
        return self.process.pid


class Guardian:
    """The state of the guardian process and its one loop."""

    def __init__(
        self, control: socket.socket, router_pid: int, cookie: str, state_dir: Path
    ) -> None:
        self._control = control
        self._table = process_table()
        self._decoder = wire.Decoder()
        self._received_fds: deque[int] = deque()
        self._engines: dict[int, _Engine] = {}
        self._record_path = record.record_path(state_dir, cookie)
        self._record = record.GuardianRecord(
            boot_id=self._table.boot_id(),
            cookie=cookie,
            guardian=record.ProcessRecord(
                os.getpid(), self._table.start_time(os.getpid()) or "", "guardian"
            ),
        )
        # Set when the router is gone.
        self._orphaned_at: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        self._watch_router(router_pid)
        self._watch_children()

    def run(self) -> None:
        """Serve until the router is gone and every engine with it."""
        self._table.become_subreaper()
        # Found out now, not at the first spawn.
        fork_exec.setpriv()
        self._save()
        self._send({"event": "hello"})
        while not self._is_done():
            for key, _ in self._selector.select(self._timeout()):
                key.data()
            self._collect_exits()
            self._sweep_due()
            self._end_orphans()
        if not self._engines:
            self._record_path.unlink(missing_ok=True)

    def _watch_router(self, router_pid: int) -> None:
        # The socket alone would not do: a forked child of the router may hold a copy of its end.
        watch = self._table.exit_watch(router_pid)
        if watch is not None:
            self._selector.register(watch, selectors.EVENT_READ, self._on_router_gone)
        if os.getppid() != router_pid:
            self._on_router_gone()

    def _watch_children(self) -> None:
        wake, self._wake_writer = socket.socketpair()
        wake.setblocking(False)
        self._wake_writer.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, self._on_wake)

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(RECEIVE_BYTES):
                pass

    def _on_control(self) -> None:
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, fds, _, _ = socket.recv_fds(self._control, RECEIVE_BYTES, MAX_RECEIVED_FDS, flags)
        except OSError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)
        self._received_fds.extend(fds)
        if not data:
            self._on_router_gone()
            return
        for message in self._decoder.feed(data):
            self._handle(message)

    def _on_router_gone(self) -> None:
        if self._orphaned_at is not None:
            return
        self._orphaned_at = time.monotonic()
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._wake:
                self._selector.unregister(key.fileobj)
        for engine in self._engines.values():
            self._signal_group(engine, signal.SIGTERM)

    def _handle(self, message: wire.Message) -> None:
        request, generation = message["request"], message["generation"]
        if request == "spawn":
            self._spawn(message)
        elif request == "owner":
            self._report_owner(message)
        elif (engine := self._engines.get(generation)) is None:
            pass
        elif request == "terminate":
            self._signal_group(engine, signal.SIGTERM)
        elif request == "kill":
            self._kill(engine)

    def _spawn(self, message: wire.Message) -> None:
        generation = message["generation"]
        mark = record.mark_of(self._record.cookie, generation)
        name, _, value = mark.rstrip(b"\0").partition(b"=")
        environment = {
            wire.bytes_of(key): wire.bytes_of(text) for key, text in message["env"].items()
        }
        environment[name] = value
        argv = [wire.bytes_of(argument) for argument in message["argv"]]
        fds = [self._received_fds.popleft() for _ in range(min(3, len(self._received_fds)))]
        try:
            pid = fork_exec.start(argv, environment, fds, self._table.die_with_parent)
        except (OSError, ValueError) as error:
            self._send(
                {"event": "failed", "generation": generation, "reason": _why(argv[0], error)}
            )
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._send({"event": "spawned", "generation": generation, "pid": pid})
        process = record.ProcessRecord(pid, self._table.start_time(pid) or "", message["model"])
        self._engines[generation] = _Engine(generation, process, mark)
        self._save()

    def _report_owner(self, message: wire.Message) -> None:
        engine = self._engines.get(message["generation"])
        pids = self._tree(engine).pids if engine is not None else set()
        total, ours = self._table.listener_owners(message["host"], message["port"], pids)
        owner = "none" if total == 0 else "ours" if total == ours else "foreign"
        self._send({"event": "owner", "question": message["question"], "owner": owner})

    def _tree(self, engine: _Engine) -> Tree:
        main_pids = {other.pid for other in self._engines.values() if not other.is_reaped}
        main_pid = None if engine.is_reaped else engine.pid
        return self._table.tree(main_pid, engine.pid, engine.mark, main_pids - {engine.pid})

    def _signal_group(self, engine: _Engine, number: signal.Signals) -> None:
        # Until the main process is reaped, its pid can name no other group.
        if not engine.is_reaped:
            # PermissionError: macOS, when only zombies are left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(engine.pid, number)

    def _kill(self, engine: _Engine) -> None:
        self._signal_group(engine, signal.SIGKILL)
        _kill_all(self._tree(engine).pids)

    def _collect_exits(self) -> None:
        while ended := self._table.collect_exit(self._before_reap):
            pid, status = ended
            engine = self._engine_of(pid)
            if engine is None:
                continue
            engine.is_reaped = True
            engine.reaped_at = time.monotonic()
            self._send(
                {
                    "event": "exited",
                    "generation": engine.generation,
                    "returncode": os.waitstatus_to_exitcode(status),
                }
            )
        # An adopted child that was reaped may have been the last of its tree.
        for engine in self._engines.values():
            if engine.is_reaped:
                engine.sweep_at = 0.0

    def _engine_of(self, pid: int) -> _Engine | None:
        for engine in self._engines.values():
            if engine.pid == pid and not engine.is_reaped:
                return engine
        return None

    def _before_reap(self, pid: int) -> None:
        if engine := self._engine_of(pid):
            self._signal_group(engine, signal.SIGKILL)

    def _sweep_due(self) -> None:
        now = time.monotonic()
        for engine in list(self._engines.values()):
            if not engine.is_reaped or engine.sweep_at > now:
                continue
            left = self._tree(engine)
            is_late = now > engine.reaped_at + UNDECIDED_MAX_S
            if left.pids or not (left.is_whole or is_late):
                _kill_all(left.pids)
                engine.sweep_at = now + engine.sweep_delay_s
                engine.sweep_delay_s = min(2 * engine.sweep_delay_s, SWEEP_LAST_S)
            else:
                del self._engines[engine.generation]
                self._save()
                self._send({"event": "reaped", "generation": engine.generation})
                if not self._engines:
                    # Strays that cleared their environment and changed their session.
                    _kill_all(self._table.descendants(os.getpid()))

    def _end_orphans(self) -> None:
        if self._orphaned_at is None:
            return
        if self._engines and time.monotonic() < self._orphaned_at + ORPHAN_GRACE_S:
            return
        for engine in self._engines.values():
            self._signal_group(engine, signal.SIGKILL)
        # All that is below this process, whether it is known whose it was or not.
        _kill_all(self._table.descendants(os.getpid()))
        for engine in self._engines.values():
            _kill_all(self._tree(engine).pids)

    def _is_done(self) -> bool:
        if self._orphaned_at is None:
            return False
        if time.monotonic() > self._orphaned_at + ORPHAN_DEADLINE_S:
            return True
        return not self._engines and not self._table.descendants(os.getpid())

    def _timeout(self) -> float | None:
        if self._orphaned_at is not None:
            return SWEEP_LAST_S / 10
        due = [engine.sweep_at for engine in self._engines.values() if engine.is_reaped]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _save(self) -> None:
        self._record.engines = [engine.process for engine in self._engines.values()]
        # A full disk must not stop engines; the cookie search does not need the list.
        with contextlib.suppress(OSError):
            record.write_record(self._record_path, self._record)

    def _send(self, event: wire.Message) -> None:
        if self._orphaned_at is None:
            try:
                self._control.sendall(wire.encode(event))
            except OSError:
                self._on_router_gone()


def _kill_all(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _why(program: bytes, error: Exception) -> str:
    name = os.fsdecode(program)
    if isinstance(error, OSError) and error.errno:
        code = errno.errorcode.get(error.errno, str(error.errno))
        return f"cannot start {name}: {os.strerror(error.errno)} ({code})"
    return f"cannot start {name}: {error}"


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing; unlike SIG_IGN, a handler is not inherited through exec."""


def main() -> None:
    """Run the guardian with the arguments of the command line."""
    fd, router_pid, cookie, state_dir = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _ignore)
    control = socket.socket(fileno=int(fd))
    control.set_inheritable(False)
    Guardian(control, int(router_pid), cookie, Path(state_dir)).run()


if __name__ == "__main__":
    main()
