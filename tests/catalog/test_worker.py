import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llama_router.catalog import wire, worker
from llama_router.catalog.discovery import discover
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.gguf_writer import write_gguf
from llama_router.catalog.header_index import HeaderIndex
from llama_router.catalog.tiny import write_model

COMMAND = [sys.executable, "-P", "-m", "llama_router.catalog.worker"]


def request_for(folder: Path, index: Path | None = None) -> wire.Request:
    return wire.Request(
        models_dirs=(folder,), env={}, home=folder / "none", platform="linux", index=index
    )


def answers_in(content: bytes) -> list[wire.Answer]:
    file, answers = io.BytesIO(content), []
    while (frame := wire.read_frame(file)) is not None:
        answers.append(wire.answer_decoder.decode(frame))
    return answers


def test_a_scan_is_answered_in_portions_and_counts(tmp_path: Path) -> None:
    for number in range(45):
        write_model(tmp_path / f"m{number:02d}.gguf", "one two three", name="m")
    out = io.BytesIO()

    worker.scan(request_for(tmp_path, index=tmp_path / "index"), out)

    *portions, done = [one for one in answers_in(out.getvalue()) if type(one) is not wire.Progress]
    assert all(isinstance(portion, wire.Portion) for portion in portions)
    ids = [model.id for one in portions if isinstance(one, wire.Portion) for model in one.models]
    assert ids == [f"m{number:02d}" for number in range(45)]
    assert done == wire.Done(45, 45, 0)


def test_warnings_come_with_the_answer(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "file").touch()
    out = io.BytesIO()

    worker.scan(request_for(tmp_path / "m" / "file"), out)

    (done,) = answers_in(out.getvalue())
    assert isinstance(done, wire.Done)
    assert "cannot be listed" in done.notes[0]


def test_the_process_answers_and_ends(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", "one two three", name="m")
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(wire.frame(request_for(tmp_path)))
        process.stdin.flush()
        answers = answers_in(process.stdout.read())
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()

    assert isinstance(answers[-1], wire.Done)
    assert answers[-1].model_count == 1


def test_the_process_ends_with_its_stdin() -> None:
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        # Of a request that is not whole there is nothing but to wait for more.
        process.stdin.write(b"\0\0\1\0abc")
        process.stdin.close()
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_nonsense_is_a_failure_in_words() -> None:
    content = b"\0\0\0\1\x93"
    done = subprocess.run(COMMAND, input=content, capture_output=True, timeout=20, check=False)

    (answer,) = answers_in(done.stdout)
    assert isinstance(answer, wire.Failed)
    assert (done.returncode, done.stderr) == (1, b"")


def models_in(content: bytes) -> list[str]:
    portions = [one for one in answers_in(content) if isinstance(one, wire.Portion)]
    return [model.id for portion in portions for model in portion.models]


def test_folders_that_are_left_out_are_not_touched_and_their_ids_stay_theirs(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "home" / ".cache"
    snapshot = cache / "huggingface/hub/models--o--r/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "huggingface/hub/models--o--r/refs").mkdir()
    (cache / "huggingface/hub/models--o--r/refs/main").write_text("a" * 40)
    for folder in ("m", "m/far", "m/near", "named", "home/.cache/llama.cpp"):
        (tmp_path / folder).mkdir(exist_ok=True)
    write_model(snapshot / "hub-Q8_0.gguf", "one", name="hub")
    write_model(tmp_path / "m/far/x.gguf", "one", name="x")
    write_model(tmp_path / "m/near/x.gguf", "one", name="x")
    write_model(tmp_path / "named/it.gguf", "one", name="it")
    write_model(cache / "llama.cpp/old.gguf", "one", name="old")
    named = tmp_path / "named" / "it.gguf"

    def found(*left_out: Path, taken: tuple[str, ...] = ()) -> list[str]:
        out = io.BytesIO()
        request = wire.Request(
            models_dirs=(tmp_path / "m",),
            env={},
            home=tmp_path / "home",
            platform="linux",
            files=(named,),
            left_out=left_out,
            taken=taken,
        )
        worker.scan(request, out)
        return models_in(out.getvalue())

    assert found() == ["near/x", "o/r:Q8_0", "old", "x", str(named)]
    assert found(tmp_path / "m" / "far") == ["o/r:Q8_0", "old", "x", str(named)]
    kept = found(tmp_path / "m" / "far", taken=("x",))
    assert kept == ["near/x", "o/r:Q8_0", "old", str(named)]
    assert found(tmp_path / "m") == ["o/r:Q8_0", "old", str(named)]
    assert found(tmp_path / "named", cache) == ["near/x", "x"]
    hub = cache / "huggingface" / "hub"
    assert found(hub / "models--o--r") == ["near/x", "old", "x", str(named)]
    assert found(hub, tmp_path) == []


def test_it_tells_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "m.gguf", "one two three", name="m")
    told, asked = threading.Event(), []

    class Out(io.BytesIO):
        def flush(self) -> None:
            told.set()

    def of(_index: HeaderIndex, path: Path, status: os.stat_result, _on_read: object) -> GgufError:
        # A disk that answers after a while.
        asked.append((path, status))
        assert told.wait(20)
        return GgufError("bad")

    monkeypatch.setattr(worker, "_PROGRESS_INTERVAL_S", 0.01)
    monkeypatch.setattr(HeaderIndex, "of", of)
    out = Out()
    worker.scan(request_for(tmp_path), out)

    first = answers_in(out.getvalue())[0]
    assert isinstance(first, wire.Progress)
    assert len(asked) == 1
    assert first.folder == tmp_path
    assert first.step_count > 0


def test_a_folder_is_tried_without_a_scan(tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", "one two three", name="m")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "m.gguf"):
        out = io.BytesIO()
        request = wire.Request(
            models_dirs=(tmp_path,), env={}, home=tmp_path, platform="linux", try_folder=folder
        )
        worker.scan(request, out)
        assert answers_in(out.getvalue()) == [wire.Done(0, 0, 0)]


def test_a_large_header_and_a_long_listing_are_many_steps(tmp_path: Path) -> None:
    def steps_over(folder: Path) -> int:
        lookout = worker._Lookout(HeaderIndex(None), ())
        discover(wire.sources(request_for(folder)), lookout)
        return lookout.progress.step_count

    (tmp_path / "few").mkdir()
    write_model(tmp_path / "few" / "m.gguf", "one two three", name="m")
    few = steps_over(tmp_path / "few")
    for number in range(20):
        (tmp_path / "few" / f"{number}.txt").touch()
    assert steps_over(tmp_path / "few") == few + 20

    (tmp_path / "large").mkdir()
    keys = {"general.architecture": "llama", "tokenizer.chat_template": "x" * 2**21}
    write_gguf(tmp_path / "large" / "m.gguf", keys, [])
    assert steps_over(tmp_path / "large") >= few + 8
