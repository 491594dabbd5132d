import sys

import pytest

from llama_router.cli.pull_bar import Bar, Lines, watcher


def test_into_a_file_go_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watcher("org/m") as shown:
        assert isinstance(shown, Lines)
        shown.show(0, 0)
        for done in range(0, 1001, 5):
            shown.show(done, 1000, "a \x1b[31mnote")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "llama-router: a \\x1b[31mnote"
    assert said[1] == "llama-router: org/m: 0 % of 1000 B"
    assert said[-1] == "llama-router: org/m: 100 % of 1000 B"
    assert len(said) == 12


def test_on_a_narrow_terminal_the_bar_stays_on_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    with watcher("user/repo-GGUF") as shown:
        shown.show(112 * 1024, 532 * 1024)
    last_drawn = capsys.readouterr().err.split("\r")[-1].strip().split("\n")
    assert len(last_drawn) == 2  # and one to show the cursor again
    assert "user/repo-GGUF" in last_drawn[0]
    assert "112.0/532.0 KiB" in last_drawn[0]


def test_on_a_terminal_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with watcher("org/[m]") as shown:
        assert isinstance(shown, Bar)
        shown.show(5, 10, "[red]a note")
        shown.show(10, 10)
    assert "[red]a note" in capsys.readouterr().err
