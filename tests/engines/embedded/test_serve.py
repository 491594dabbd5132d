"""The embedded engine's process; what it shares with llama-server is in tests/conformance."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.engines.embedded.serve import flags_of
from llama_router.engines.kinds.embedded import embedded_command
from llama_router.engines.kinds.llama_server import PUSH_VARIABLE
from tests.support.tools import need_embedded

pytestmark = pytest.mark.embedded

_DEADLINE_S = 20
_BIG_MODEL_BYTES = 512 * 1024 * 1024


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    need_embedded()
    return subprocess.run(
        embedded_command(flags), capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )


def test_what_keeps_an_engine_within_its_memory_may_come_from_the_environment() -> None:
    environment = {"LLAMA_ARG_FIT_TARGET": "4096", "LLAMA_ARG_CTX_SIZE": "1", "PATH": "/bin"}
    assert flags_of(environment) == ["--fit-target", "4096"]
    assert flags_of({"LLAMA_ARG_CACHE_RAM": "0"}) == ["--cache-ram", "0"]
    assert flags_of({"LLAMA_ARG_FIT_TARGET": ""}) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model is missing"),
        (["--device", "CUDA0"], "option --device .* llama-server"),
        (["--model", "m", "--ctx-size", "big"], "--ctx-size does not take 'big'"),
        (["--model", "m", "-ot", "a=NOWHERE"], "tensor_buft_overrides"),
    ],
)
def test_a_flag_that_cannot_be_taken_ends_with_2(flags: list[str], message: str) -> None:
    ended = run(*flags)
    assert ended.returncode == 2
    assert "cmd_child_to_router" not in ended.stdout
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("llama-router embedded engine: ")
    # A pattern of words, in their order.
    at = -1
    for word in message.split(" .* "):
        at = last.index(word, at + 1)


def test_a_file_that_is_no_model_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"nonsense")
    ended = run("--model", str(file), "--port", "0")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"cannot serve {file}" in ended.stderr
    # llama.cpp's reason is not lost, though its log is written by a thread.
    assert "exiting due to model loading error" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.parametrize("ending", ["exit line", "end of stdin"])
def test_while_it_loads_the_pipe_ends_it_at_once(tmp_path: Path, ending: str) -> None:
    need_embedded()
    model = tmp_path / "big.gguf"
    write_model(model, "Some words to say.", name="big", pad_bytes=_BIG_MODEL_BYTES)
    with subprocess.Popen(
        embedded_command(["--model", str(model), "--port", "0", "--load-mode", "none"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={PUSH_VARIABLE: "0"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = process.stdout.readline()
        assert b'"loading"' in first
        if ending == "exit line":
            process.stdin.write(b"cmd_router_to_child:exit\n")
            process.stdin.flush()
        else:
            process.stdin.close()
        status = process.wait(_DEADLINE_S)
        said = process.stdout.read()
    assert status == -signal.SIGTERM
    assert b'"ready"' not in said
