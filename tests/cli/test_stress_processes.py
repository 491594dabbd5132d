from collections import Counter
from pathlib import Path

import pytest

from llama_router.cli.stress_processes import StressRunError, as_figures, run_processes
from llama_router.stress.router_process import RouterStartError
from llama_router.stress.tally import Leaks, Report, Tally


def play(monkeypatch: pytest.MonkeyPatch, violation: str = "", error: str = "") -> list[Path]:
    folders: list[Path] = []

    async def run(seed: int, duration_s: float, folder: Path, _say: object) -> Report:
        folders.append(folder)
        if error:
            raise RouterStartError(error)
        tally = Tally(outcomes=Counter({"ok chat": 1}), waits_s=[0.5, 2.0, 1.0])
        if violation:
            tally.violate(violation)
        return Report(seed, duration_s, tally, Leaks())

    monkeypatch.setattr("llama_router.stress.run.run", run)
    return folders


@pytest.fixture(autouse=True)
def _own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_good_run_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = play(monkeypatch)
    report, log = run_processes(7, 0.5, print)
    assert (report.seed, report.load_s, log) == (7, 30.0, None)
    assert not folders[0].exists()


def test_a_violation_keeps_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = play(monkeypatch, violation="not alpha's words")
    _, log = run_processes(7, 0.5, print)
    assert log == folders[0] / "router.log"
    assert folders[0].exists()


def test_a_run_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = play(monkeypatch, error="the router did not come up")
    with pytest.raises(StressRunError, match="did not come up"):
        run_processes(7, 0.5, print)
    assert not folders[0].exists()


def test_programs_get_the_worst_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    figures = as_figures(run_processes(7, 0.5, print)[0])
    assert figures["tally"]["worst_wait_s"] == 2.0
    assert figures["tally"]["outcomes"] == {"ok chat": 1}
    assert figures["leaks"]["processes"] == []
