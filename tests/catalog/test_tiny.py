import base64
import json
import struct
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import pytest

from llama_router.catalog.demo import DEMO_TEXTS, make_demo_models
from llama_router.catalog.gguf_reader import read_gguf
from llama_router.catalog.tiny import write_model
from llama_router.catalog.tiny_projector import write_projector
from tests.support.tools import embedded_available, llama_server_path

TEXT = "The ship left the harbour. The captain watched the sea and the gulls.\n\nThe end."
ENGINE_TIMEOUT_S = 50

# Runs in a process of its own: the engine installs signal handlers and may abort.
EMBEDDED = """
import json, sys
import xllamacpp

path, requests = sys.argv[1], json.loads(sys.argv[2])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.embedding = True
server = xllamacpp.Server(params)
answers = [getattr(server, name)(body) for name, body in requests]
print("ANSWERS" + json.dumps(answers), flush=True)
"""


def chat(**options: float) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "tell me of the sea"}], **options}


def said(answer: dict[str, Any]) -> str:
    content: str = answer["choices"][0]["message"]["content"]
    return content


def embedded_answers(path: Path, requests: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    if not embedded_available():
        pytest.skip("the embedded engine is not installed")
    run = subprocess.run(
        [sys.executable, "-c", EMBEDDED, str(path), json.dumps(requests)],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENGINE_TIMEOUT_S,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, run.stderr[-2000:]
    answers: list[Any] = json.loads(lines[0].removeprefix("ANSWERS"))
    return answers


@contextmanager
def llama_server(*arguments: str) -> Iterator[str]:
    """Run a llama-server on a port that the system chooses; give its address."""
    process = subprocess.Popen(
        [llama_server_path(), "--port", "0", "--threads", "1", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    log = []
    try:
        for line in process.stdout:
            log.append(line)
            if "listening on http" in line:
                yield "http" + line.split("listening on http")[1].split()[0]
                return
        pytest.fail("llama-server ended:\n" + "".join(log[-20:]))
    finally:
        process.kill()
        process.stdout.close()
        process.wait(ENGINE_TIMEOUT_S)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own server
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ENGINE_TIMEOUT_S) as answer:  # noqa: S310
        decoded: dict[str, Any] = json.load(answer)
    return decoded


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x80\x40\x20" * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_header_is_readable_by_the_reference_library(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", TEXT, name="Sea", ctx=1024)

    reader = gguf.GGUFReader(path)

    assert reader.fields["general.name"].contents() == "Sea"
    assert reader.fields["llama.context_length"].contents() == 1024
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens)) == reader.tensors[0].shape[1]
    assert "".join(tokens[261:]) == TEXT + "\n"
    end = reader.tensors[-1].data_offset + reader.tensors[-1].n_bytes
    assert end == path.stat().st_size
    assert path.stat().st_size < 600_000


def test_output_row_of_each_token_answers_to_its_predecessor_only(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", TEXT, name="Sea")

    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    logits = tensors["token_embd.weight"] @ tensors["output.weight"].T

    first, last, end_token = 261, logits.shape[0] - 2, 2
    successors = [*range(first + 1, last + 1), end_token, first]
    assert logits.argmax(axis=1).tolist() == [first] * first + successors
    logits.sort(axis=1)
    assert (logits[:, -1] - logits[:, -2]).min() >= 50


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    (one,) = write_model(tmp_path / "one.gguf", TEXT, name="Sea")
    (two,) = write_model(tmp_path / "two.gguf", TEXT, name="Sea")
    (other,) = write_model(tmp_path / "other.gguf", TEXT + " Really.", name="Sea")

    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.gguf",
        "other.gguf",
        "two.gguf",
    ]


@pytest.mark.parametrize("text", ["", " \n", "</s> a", " ".join(map(str, range(2000)))])
def test_text_that_cannot_be_said_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="text"):
        write_model(tmp_path / "m.gguf", text, name="x")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", [0, -1, 100])
def test_impossible_split_is_refused(tmp_path: Path, split: int) -> None:
    with pytest.raises(ValueError, match="cannot split"):
        write_model(tmp_path / "m.gguf", TEXT, name="x", split=split)


def test_padding_takes_no_disk_space(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", TEXT, name="Large", pad_bytes=8 << 30)

    status = path.stat()
    assert 8 << 30 <= status.st_size < 9 << 30
    assert read_gguf(path).tensor_bytes >= 8 << 30
    if hasattr(status, "st_blocks"):
        assert status.st_blocks * 512 < 4 << 20


def test_demo_models_are_made_once_and_repaired(tmp_path: Path) -> None:
    paths = make_demo_models(tmp_path / "demo")
    before = [path.stat().st_ino for path in paths]
    assert make_demo_models(tmp_path / "demo") == paths
    assert [path.stat().st_ino for path in paths] == before

    good = paths[0].read_bytes()
    paths[0].write_bytes(b"half a mod")
    paths[1].unlink()
    make_demo_models(tmp_path / "demo")

    assert paths[0].read_bytes() == good
    assert sorted(path.stem for path in paths) == sorted(DEMO_TEXTS)
    assert sorted((tmp_path / "demo").iterdir()) == sorted(paths)


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("split", [1, 3])
def test_embedded_engine_says_the_text(tmp_path: Path, split: int) -> None:
    first, *_ = write_model(tmp_path / "m.gguf", TEXT, name="Sea", split=split)

    cold, default, hot, looped, one, other = embedded_answers(
        first,
        [
            ("handle_chat_completions", chat(temperature=0)),
            ("handle_chat_completions", chat()),
            ("handle_chat_completions", chat(temperature=1.5, top_k=0, top_p=1, min_p=0)),
            ("handle_chat_completions", chat(ignore_eos=True, max_tokens=40)),
            ("handle_embeddings", {"input": "the sea"}),
            ("handle_embeddings", {"input": "the sky"}),
        ],
    )

    assert said(cold) == said(default) == said(hot) == TEXT
    assert said(looped).startswith(TEXT + "\n" + TEXT)
    vectors = [answer["data"][0]["embedding"] for answer in (one, other)]
    assert len(vectors[0]) == 128
    assert vectors[0] != vectors[1]


@pytest.mark.embedded
@pytest.mark.slow
def test_embedded_engine_says_the_demo_texts(tmp_path: Path) -> None:
    paths = make_demo_models(tmp_path)

    answers = [embedded_answers(path, [("handle_chat_completions", chat())]) for path in paths]

    assert [said(answer) for (answer,) in answers] == list(DEMO_TEXTS.values())


@pytest.mark.llama_server
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"split": 2}, {"pad_bytes": 64 << 20}], ids=str)
def test_llama_server_says_the_text(tmp_path: Path, options: dict[str, int]) -> None:
    first, *_ = write_model(
        tmp_path / "m.gguf",
        TEXT,
        name="Sea",
        split=options.get("split", 1),
        pad_bytes=options.get("pad_bytes", 0),
    )

    with llama_server("--model", str(first)) as url:
        assert said(post(url + "/v1/chat/completions", chat(temperature=0))) == TEXT
        assert said(post(url + "/v1/chat/completions", chat())) == TEXT
        completion = post(url + "/v1/completions", {"prompt": " captain", "max_tokens": 1})

    assert completion["choices"][0]["text"] == " watched"


@pytest.mark.llama_server
@pytest.mark.slow
def test_endless_model_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", TEXT, name="Sea", endless=True)

    with llama_server("--model", str(path)) as url:
        answer = post(url + "/v1/chat/completions", chat(max_tokens=500))

    assert answer["choices"][0]["finish_reason"] == "length"
    assert said(answer).startswith((TEXT + "\n") * 20)


@pytest.mark.llama_server
@pytest.mark.slow
def test_llama_server_takes_a_picture_with_the_projector(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", TEXT, name="Sea")
    mmproj = write_projector(tmp_path / "mmproj.gguf")
    picture = "data:image/png;base64," + base64.b64encode(png(40, 30)).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]

    with llama_server("--model", str(path), "--mmproj", str(mmproj)) as url:
        answer = post(
            url + "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}
        )

    assert said(answer) == TEXT
