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


def test_on_a_terminal_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with watcher("org/[m]") as shown:
        assert isinstance(shown, Bar)
        shown.show(5, 10, "[red]a note")
        shown.show(10, 10)
    assert "[red]a note" in capsys.readouterr().err
