import io
import subprocess
import sys
from pathlib import Path

from llama_router.catalog import wire, worker
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
