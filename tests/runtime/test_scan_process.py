import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_router.catalog import wire
from llama_router.catalog.tiny import write_model
from llama_router.runtime import scan_process
from llama_router.runtime.scan_process import ScanError, ScanProcess, StuckError

FOLDER = Path("/models")
DONE = wire.Done(0, 0, 0)


def request_for(folder: Path) -> wire.Request:
    return wire.Request(models_dirs=(folder,), env={}, home=folder / "none", platform="linux")


@contextmanager
def process_for(folder: Path) -> Iterator[ScanProcess]:
    process = ScanProcess(request_for(folder))
    try:
        yield process
    finally:
        process.give_up()
        assert process.has_ended(20)


def saying(*answers: wire.Answer | bytes) -> "type[subprocess.Popen[bytes]]":
    """Stand in the place of ``start_helper``: a process that says this, and then no more."""
    content = b"".join(one if isinstance(one, bytes) else wire.frame(one) for one in answers)
    script = f"import sys; sys.stdout.buffer.write({content!r}); sys.stdout.flush(); input()"

    def start(_module: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    return start  # type: ignore[return-value]  # called just so


def test_it_answers_up_to_the_end(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", "one two three", name="m")
    with process_for(tmp_path) as process:
        answers = [one for one in process.answers() if not isinstance(one, wire.Progress)]
    portion, done = answers
    assert isinstance(portion, wire.Portion)
    assert [model.id for model in portion.models] == ["m"]
    assert isinstance(done, wire.Done)


def test_given_up_it_ends_and_has_no_more_answers(tmp_path: Path) -> None:
    with process_for(tmp_path) as process:
        process.give_up()
        process.give_up()
        with pytest.raises(ScanError, match="ended before it was done"):
            list(process.answers())


def test_one_that_stays_where_it_is_is_stuck_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_process, "_STILL_MAX_COUNT", 3)
    moving = [wire.Progress(1, FOLDER, step) for step in range(20)]
    monkeypatch.setattr(scan_process, "start_helper", saying(*moving, *[moving[-1]] * 2, DONE))
    with process_for(tmp_path) as process:
        assert list(process.answers())[-1] == DONE

    monkeypatch.setattr(scan_process, "start_helper", saying(*moving, *[moving[-1]] * 3))
    with process_for(tmp_path) as process, pytest.raises(StuckError, match="/models") as raised:
        list(process.answers())
    assert raised.value.folder == FOLDER


def test_one_that_is_frozen_is_stuck_where_it_was_seen_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_process, "start_helper", saying(wire.Progress(1, FOLDER, 1)))
    with process_for(tmp_path) as process:
        answers = process.answers()
        next(answers)
        monkeypatch.setattr(scan_process, "_LOOK_S", 0.001)
        with pytest.raises(StuckError, match="said nothing") as raised:
            next(answers)
    assert raised.value.folder == FOLDER


@pytest.mark.parametrize(("empty_count", "is_stuck"), [(2, False), (3, True)])
def test_how_long_a_look_took_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, empty_count: int, is_stuck: bool
) -> None:
    class Frames(queue.Queue[bytes | None]):
        """A look in which this process was stopped, or the machine asleep, is as long as that."""

        left = empty_count

        def get(
            self,
            block: bool = True,  # noqa: FBT001, FBT002 - as that of any queue
            timeout: float | None = None,
        ) -> bytes | None:
            if timeout is not None and self.left:
                self.left -= 1
                raise queue.Empty
            return super().get(block)

    monkeypatch.setattr(scan_process, "_SILENT_LOOKS_MAX_COUNT", 3)
    monkeypatch.setattr(scan_process, "start_helper", saying(DONE))
    monkeypatch.setattr(queue, "Queue", Frames)
    with process_for(tmp_path) as process:
        answers = process.answers()
        if is_stuck:
            with pytest.raises(StuckError, match="said nothing"):
                next(answers)
        else:
            assert list(answers) == [DONE]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (wire.Failed("a fault"), "a fault"),
        (b"\0\0\0\1\x93", "makes no sense"),
        (b"\xff\xff\xff\xff", "ended before"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: wire.Answer | bytes, problem: str
) -> None:
    monkeypatch.setattr(scan_process, "start_helper", saying(said))
    with process_for(tmp_path) as process, pytest.raises(ScanError, match=problem) as raised:
        list(process.answers())
    assert not isinstance(raised.value, StuckError)


def test_many_answers_that_nobody_takes_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [wire.Progress(count) for count in range(1000)]
    monkeypatch.setattr(scan_process, "start_helper", saying(*many))
    with process_for(tmp_path) as process:
        next(process.answers())
