import errno
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from llama_router.config import edit, load
from llama_router.config.document import Document
from llama_router.config.edit import Edit
from llama_router.config.problems import ConfigError, Issue
from llama_router.config.schema import Config
from llama_router.runtime import config_aside
from llama_router.runtime.config_aside import ConfigAside
from llama_router.runtime.config_editing import write_edited
from llama_router.runtime.config_file import ConfigFile, ReadError, Reading
from llama_router.runtime.helper import start_helper

PORT = Edit("set", ("router", "port"), 81)
PADDING = "# so that it is long\n" * 2000


def not_here(*_arguments: object) -> NoReturn:
    raise AssertionError("a long text is worked on in this process")


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_aside, "start_helper", not_here)


@pytest.mark.usefixtures("no_process")
def test_an_edit_parses_the_text_and_its_outcome_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    class Counted(Document):
        def __init__(self, text: str, path: Path) -> None:
            parsed.append(text)
            super().__init__(text, path)

    for module in (edit, load):
        monkeypatch.setattr(module, "Document", Counted)
    before = "router:\n  port: 80  # ours\n"
    path = written(tmp_path, before)
    made = ConfigAside().edit(ConfigFile(path), path, before, [PORT])
    assert made.text == before.replace("80", "81")
    assert parsed == [before, made.text]


@pytest.mark.usefixtures("no_process")
def test_a_short_text_takes_no_process(tmp_path: Path) -> None:
    text = "router:\n  admin_token: canary-canary\n"
    path, aside = written(tmp_path, text), ConfigAside()
    source = ConfigFile(path)
    assert aside.read(source).text == text
    assert aside.read(source, "router: {port: 82}\n").config.router.port == 82
    assert aside.edit(source, path, text, [PORT]).text == f"{text}  port: 81\n"
    assert "canary" not in aside.redact(text, path)
    assert path.read_text() == text


def test_a_long_text_is_worked_on_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{PADDING}router:\n  admin_token: canary-canary\n"
    path, aside = written(tmp_path, text), ConfigAside()
    source = ConfigFile(path, {"ttl_s": 7.0})
    # What is sent there is found by its name.
    monkeypatch.setattr(ConfigFile, "read", not_here)
    monkeypatch.setattr(ConfigFile, "read_text", not_here)
    reading = aside.read(source)
    assert (reading.text, reading.config.router.ttl_s) == (text, 7.0)
    assert aside.read(source, f"{PADDING}startup_model: owl\n").config.startup_model == "owl"
    edited = aside.edit(source, path, text, [PORT])
    assert edited.text == f"{text}  port: 81\n"
    assert edited.config.router.port == 81
    monkeypatch.setattr("llama_router.config.secrets.Document", not_here)
    shown = aside.redact(text, path)
    assert "canary" not in shown
    assert shown.startswith(PADDING)
    assert path.read_text() == text


def test_places_in_a_long_text_are_looked_up_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    reading = Reading(Config(), f"{PADDING}router:\n  ttl_s: 5\n")
    monkeypatch.setattr("llama_router.runtime.config_file.Document", not_here)
    (problem,) = ConfigAside().locate(path, reading, [Issue(("router", "ttl_s"), "hm")])
    assert str(problem) == f"{path}:2002:3: router.ttl_s: hm"


def test_what_is_wrong_with_a_long_text_is_said_with_its_place(tmp_path: Path) -> None:
    text = f"{PADDING}what: is this\n"
    path, aside = written(tmp_path, text), ConfigAside()
    with pytest.raises(ConfigError, match=r"config\.yaml:2001:1: what"):
        aside.read(ConfigFile(path))
    with pytest.raises(ConfigError, match=r"config\.yaml:2001:1: what"):
        aside.edit(ConfigFile(path), path, text, [PORT])
    wrong = Edit("set", ("what", "x"), 1)
    with pytest.raises(ConfigError, match="plain value") as refused:
        aside.edit(ConfigFile(path), path, text, [wrong])
    assert refused.value.problems[0].line == 2001


def test_many_edits_of_a_short_text_are_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside = written(tmp_path, "models:\n- name: fox\n"), ConfigAside()
    monkeypatch.setattr(config_aside, "_edit", not_here)
    edits = [
        Edit("set", ("models", f"name=fox-{number}", "state"), "auto") for number in range(2000)
    ]
    with pytest.raises(AssertionError, match="in this process"):
        aside.edit(ConfigFile(path), path, path.read_text(), edits[:100])
    monkeypatch.undo()
    made = aside.edit(ConfigFile(path), path, path.read_text(), edits)
    assert len(made.config.models) == 2001


def test_an_edit_that_makes_a_long_text_of_a_short_one_is_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(_module: str) -> NoReturn:
        raise OSError("elsewhere")

    path, aside = written(tmp_path, "router: {}\n"), ConfigAside()
    monkeypatch.setattr(config_aside, "start_helper", elsewhere)
    models = [{"name": f"fox-{number}", "path": f"/m/{number}.gguf"} for number in range(1000)]
    with pytest.raises(ReadError, match="elsewhere"):
        aside.edit(ConfigFile(path), path, path.read_text(), [Edit("set", ("models",), models)])


def test_a_process_that_does_not_answer_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ConfigFile(written(tmp_path, PADDING))
    monkeypatch.setattr(config_aside, "_WORKER", "llama_router.nowhere")
    with pytest.raises(ReadError, match="has failed, with status 1; nothing was changed"):
        ConfigAside().read(source)


def test_an_edit_whose_process_is_killed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside = written(tmp_path, PADDING + "router: {}\n"), ConfigAside()
    source, before = ConfigFile(path), path.read_bytes()
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str) -> subprocess.Popen[bytes]:
        child = start_helper(module)
        started.append(child)
        child.kill()
        return child

    monkeypatch.setattr(config_aside, "start_helper", start)
    how = "status 1" if sys.platform == "win32" else "signal 9"
    with pytest.raises(ReadError, match=f"{how}.*nothing was changed"):
        write_edited(aside, source, Reading(Config()), [PORT], None)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert [child.returncode is None for child in started] == [False]
    monkeypatch.undo()
    assert write_edited(aside, source, Reading(Config()), [PORT], None).config.router.port == 81


def test_a_process_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reads its stdin to its end, which does not come.
    monkeypatch.setattr(config_aside, "_WORKER", "json.tool")
    monkeypatch.setattr(config_aside, "_TIMEOUT_S", 0.0)
    with pytest.raises(ReadError, match="not within 0 s; nothing was changed"):
        ConfigAside().read(ConfigFile(written(tmp_path, PADDING)))


def test_where_no_process_or_thread_can_be_started_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, started = ConfigFile(written(tmp_path, PADDING)), list[subprocess.Popen[bytes]]()

    def start(module: str) -> subprocess.Popen[bytes]:
        if not started:
            started.append(start_helper(module))
            return started[0]
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def refuse(_timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(config_aside, "start_helper", start)
    monkeypatch.setattr(threading.Timer, "start", refuse)
    with pytest.raises(ReadError, match="can't start new thread"):
        ConfigAside().read(source)
    assert started[0].returncode is not None
    with pytest.raises(ReadError, match="Cannot allocate memory"):
        ConfigAside().read(source)


def test_nobody_waits_for_a_process_when_the_router_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, aside = ConfigFile(written(tmp_path, PADDING)), ConfigAside()
    # Reads its stdin to its end, which does not come.
    monkeypatch.setattr(config_aside, "_WORKER", "json.tool")
    started = threading.Event()

    def start(module: str) -> object:
        child = start_helper(module)
        started.set()
        return child

    monkeypatch.setattr(config_aside, "start_helper", start)

    def end() -> None:
        started.wait()
        aside.close()

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(ReadError, match="the router ends"):
        aside.read(source)
    ending.join()
    with pytest.raises(ReadError, match="the router ends"):
        aside.read(source)
