"""Transcripts: events in, commands out, as text.

A script has one line for each event (``>``), below it one line for each command that it must cause,
in order. A line ``...`` below an event allows commands that the script does not mention. ``@ 12``
sets the clock, ``= a loaded waiting=1`` compares the view of a model. Engines are written
``model#generation``. Every line is used or the script fails; after every event the invariants and
the log are checked.
"""

import difflib
import shlex
from collections.abc import Iterable

import msgspec

from llama_router.core import events as ev
from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    Inspect,
    Kill,
    Notify,
    Reject,
    SetTimer,
    Settled,
    ShutdownComplete,
    Spawn,
    Terminate,
)
from llama_router.core.invariants import check
from llama_router.core.machine import Core
from llama_router.core.model import ModelView
from llama_router.core.policies.base import Policy
from llama_router.core.settings import CoreSettings
from tests.core.auditor import Auditor


class ScriptError(AssertionError):
    """The core did not follow the script, or the script makes no sense."""


def specs(text: str) -> tuple[ev.ModelSpec, ...]:
    """``"a b/g c/g:2"``: names, then groups (default: the name), then fingerprints."""
    result = []
    for word in text.split():
        rest, _, fingerprint = word.partition(":")
        name, _, group = rest.partition("/")
        result.append(ev.ModelSpec(name, group or name, fingerprint))
    return tuple(result)


class Stage:
    """A core under watch: invariants and log are checked after each event."""

    def __init__(
        self,
        models: Iterable[ev.ModelSpec],
        policy: Policy | None = None,
        settings: CoreSettings | None = None,
        *,
        inspects: bool = True,
    ) -> None:
        models = tuple(models)
        self.core = Core(models, policy, settings)
        self.auditor = Auditor(models, settings)
        self.now = 0.0
        self.commands: list[Command] = []
        self.inspects = inspects
        """Whether models are found in order at once, without a word of it in the commands."""

    def views(self) -> dict[str, ModelView]:
        """How every model is doing, by name."""
        return {name: self.core.view(name) for name in self.core.ledger.models}

    def handle(self, event: ev.Event) -> list[Command]:
        commands = self._handle(event)
        if self.inspects:
            for each in [each for each in commands if isinstance(each, Inspect)]:
                commands += self.handle(ev.ModelInspected(each.model, each.inspection))
            commands = [each for each in commands if not _is_of_inspection(each)]
        self.commands += commands
        return commands

    def _handle(self, event: ev.Event) -> list[Command]:
        commands = self.core.handle(event, self.now)
        self.auditor.observe(event, commands)
        check(self.core)
        assert self.core.ledger.timers == self.auditor.timers
        self._compare_memory()
        return commands

    def _compare_memory(self) -> None:
        """What the log says is held must be booked; more than that after running out of it."""
        for name, (_, held) in self.auditor.memory.held.items():
            model = self.core.ledger.models[name]
            booked = {part.device: part.size_bytes for part in model.reserved}
            for part in held:
                assert booked.get(part.device, 0) >= part.size_bytes, (model, part, booked)


def _is_of_inspection(command: Command) -> bool:
    if isinstance(command, SetTimer | CancelTimer):
        return command.timer.kind is ev.TimerKind.INSPECTION
    return isinstance(command, Inspect)


def play(models: str, script: str, *, stage: Stage | None = None) -> Stage:
    """Run ``script``; raise ScriptError with a diff where the core departs from it."""
    stage = stage or Stage(specs(models))
    done: list[str] = []
    lines = [line.split("  #")[0].strip() for line in script.splitlines()]
    lines = [line for line in lines if line]
    while lines:
        line = lines.pop(0)
        if line.startswith("@ "):
            stage.now = float(line[2:])
        elif line.startswith("= "):
            _compare_view(stage.core, line[2:])
        elif line.startswith("> "):
            expected = []
            while lines and lines[0][:2] not in ("> ", "@ ", "= "):
                expected.append(lines.pop(0))
            actual = [render(command) for command in stage.handle(parse(line[2:]))]
            _compare(done, line, expected, actual)
            done += [line, *actual]
            continue
        else:
            raise ScriptError(f"a command without an event: {line}")
        done.append(line)
    return stage


def _compare(done: list[str], event: str, expected: list[str], actual: list[str]) -> None:
    if "..." in expected:
        wanted = [line for line in expected if line != "..."]
        rest = iter(actual)
        if all(line in rest for line in wanted):
            return
    elif expected == actual:
        return
    diff = difflib.unified_diff(expected, actual, "script", "core", lineterm="", n=99)
    text = "\n".join(["", *done[-12:], event, *diff])
    raise ScriptError(text)


def _compare_view(core: Core, line: str) -> None:
    name, state, *pairs = shlex.split(line)
    view = msgspec.structs.asdict(core.view(name))
    expected = {"state": state} | dict(pair.split("=", 1) for pair in pairs)
    actual = {key: str(view[key]) for key in expected}
    if actual != expected:
        raise ScriptError(f"{name}: the script has {expected}, the core {actual}")


def parse(line: str) -> ev.Event:  # noqa: PLR0912 - one case for each word of the language
    """Read an event as scripts write it."""
    word, *rest = shlex.split(line)
    match word, rest:
        case "arrive", [number, model, *flags] if not {*flags} - {"notices", "visit", "beside"}:
            return ev.RequestArrived(
                int(number),
                model,
                "visit" not in flags,
                "notices" in flags,
                takes_slot="beside" not in flags,
            )
        case "cancel", [number]:
            return ev.RequestCancelled(int(number))
        case "finish", [number]:
            return ev.RequestFinished(int(number))
        case "bounce", [number]:
            return ev.RequestBounced(int(number))
        case "load", [number, model]:
            return ev.LoadRequested(int(number), model)
        case "unload", [number, model]:
            return ev.UnloadRequested(int(number), model)
        case "inspected", [question]:
            return ev.ModelInspected(*_engine(question))
        case "inspected", [question, problem]:
            return ev.ModelInspected(*_engine(question), problem)
        case "models", _:
            return ev.ModelsChanged(specs(" ".join(rest)))
        case "fired", [kind]:
            return ev.TimerFired(ev.Timer(ev.TimerKind(kind)))
        case "fired", [kind, engine]:
            return ev.TimerFired(ev.Timer(ev.TimerKind(kind), *_engine(engine)))
        case "shutdown", [deadline]:
            return ev.ShutdownRequested(float(deadline))
        case "force", []:
            return ev.ShutdownForced()
        case _, [engine, *rest] if "#" in engine:
            return _parse_engine_event(word, engine, rest)
        case _:
            raise ScriptError(f"no such event: {line}")


def _parse_engine_event(word: str, engine: str, rest: list[str]) -> ev.Event:
    model, generation = _engine(engine)
    match word, rest:
        case "spawned", []:
            return ev.EngineSpawned(model, generation)
        case "spawn_failed", []:
            return ev.SpawnFailed(model, generation, "no such file")
        case "progress", [fraction]:
            return ev.EngineProgress(model, generation, float(fraction))
        case "ready", []:
            return ev.EngineReady(model, generation)
        case "exited", []:
            return ev.EngineExited(model, generation, "exited with status 1")
        case "exited", [cause]:
            return ev.EngineExited(model, generation, cause, ev.ExitCause(cause))
        case "reaped", []:
            return ev.EngineReaped(model, generation)
        case "stolen", []:
            return ev.AddressStolen(model, generation)
        case _:
            raise ScriptError(f"no such event: {word} {engine} {rest}")


def _engine(text: str) -> tuple[str, int]:
    model, _, generation = text.partition("#")
    return model, int(generation)


def render(command: Command) -> str:  # noqa: PLR0912 - one case for each command
    """Write a command as scripts do; texts for people are left out."""
    match command:
        case Spawn(model, generation):
            return f"spawn {model}#{generation}"
        case Inspect(model, inspection):
            return f"inspect {model}#{inspection}"
        case Terminate(model, generation):
            return f"terminate {model}#{generation}"
        case Kill(model, generation):
            return f"kill {model}#{generation}"
        case Dispatch(request_id, model, generation):
            return f"dispatch {request_id} {model}#{generation}"
        case Reject(request_id, kind, _, None):
            return f"reject {request_id} {kind.value}"
        case Reject(request_id, kind, _, retry_after_s):
            return f"reject {request_id} {kind.value} retry={retry_after_s:g}"
        case Abort(request_id):
            return f"abort {request_id}"
        case Notify(request_id, kind, model, None, position) if position is not None:
            return f"notify {request_id} {kind.value} {model} {position}"
        case Notify(request_id, kind, model, None):
            return f"notify {request_id} {kind.value} {model}"
        case Notify(request_id, kind, model, fraction):
            return f"notify {request_id} {kind.value} {model} {fraction:g}"
        case Settled(request_id, None):
            return f"settled {request_id}"
        case Settled(request_id, error) if error is not None:
            return f"settled {request_id} {error.value}"
        case SetTimer(timer, at):
            return f"set {_timer(timer)} @{at:g}"
        case CancelTimer(timer):
            return f"unset {_timer(timer)}"
        case Emit(model, old, new):
            return f"{model}: {old} -> {new}"
        case ShutdownComplete():
            return "shutdown complete"
        case _:
            raise ScriptError(f"no such command: {command}")


def _timer(timer: ev.Timer) -> str:
    return (
        f"{timer.kind.value} {timer.model}#{timer.generation}"
        if timer.model
        else (timer.kind.value)
    )
