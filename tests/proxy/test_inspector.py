import asyncio
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator
from typing import IO

import pytest
import pytest_asyncio

import llama_router.proxy.inspector as inspector_module
from llama_router.proxy.errors import BadRequestError, InternalError
from llama_router.proxy.inspector import BodyInspector, Changed
from llama_router.proxy.inspector_child import Change
from llama_router.proxy.peek import Peek
from llama_router.proxy.rewrite import make_rewrite

FORM_TYPE = b"multipart/form-data; boundary=b"
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n%b\r\n'
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
) % (b"\r\n-" * 100_000)
JSON = b'{"model":"a","stream":true,"x":"%b"}' % (b"y" * 500_000)


@pytest_asyncio.fixture
async def inspector() -> AsyncIterator[BodyInspector]:
    made = BodyInspector()
    yield made
    await made.close()


def stored(data: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(data)
    file.seek(0)
    return file


@pytest.mark.asyncio
async def test_bodies_in_memory_and_on_disk_are_read(inspector: BodyInspector) -> None:
    with stored(JSON) as json_file, stored(FORM) as form_file:
        for _ in range(2):
            for json_source in (JSON, json_file):
                peek = await inspector.inspect(json_source, None)
                assert (peek.model, peek.stream) == ("a", True)
            for form_source in (FORM, form_file):
                assert (await inspector.inspect(form_source, FORM_TYPE)).model == "whisper"
            assert json_file.tell() == form_file.tell() == 0


@pytest.mark.asyncio
async def test_without_questions_the_process_ends_and_the_next_one_starts_another(
    inspector: BodyInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inspector.inspect(JSON, None)
    first = inspector._child
    assert first is not None
    monkeypatch.setattr(inspector_module, "_IDLE_MAX_S", 0.0)
    await inspector.inspect(JSON, None)
    async with asyncio.timeout(30):
        await asyncio.to_thread(first.wait)
    monkeypatch.setattr(inspector_module, "_IDLE_MAX_S", 300.0)
    for _ in range(2):
        assert (await inspector.inspect(JSON, None)).model == "a"
    second = inspector._child
    assert second is not None
    assert second.poll() is None
    # Whoever comes just then does not get the one that is ending.
    inspector._retire()
    assert (await inspector.inspect(JSON, None)).model == "a"


@pytest.mark.asyncio
async def test_a_process_that_nobody_asks_because_its_client_has_left_ends_too(
    inspector: BodyInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector_module, "_IDLE_MAX_S", 0.0)
    children: list[subprocess.Popen[bytes]] = []
    start = inspector_module._start_child

    is_starting, has_left = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def noted() -> tuple[subprocess.Popen[bytes], socket.socket]:
        loop.call_soon_threadsafe(is_starting.set)
        has_left.wait(30)
        child, channel = start()
        children.append(child)
        return child, channel

    monkeypatch.setattr(inspector_module, "_start_child", noted)
    asking = asyncio.ensure_future(inspector.inspect(JSON, None))
    await is_starting.wait()
    starting = inspector._starting
    assert starting is not None
    asking.cancel()
    await asyncio.wait([asking])
    has_left.set()
    async with asyncio.timeout(30):
        await asyncio.wait([starting])
        await asyncio.to_thread(children[0].wait)


@pytest.mark.asyncio
async def test_questions_at_once_get_their_own_answers(inspector: BodyInspector) -> None:
    names = [f"m{number}" for number in range(20)]
    bodies = [f'{{"model":"{name}"}}'.encode() for name in names]
    peeks = await asyncio.gather(*(inspector.inspect(body, None) for body in bodies))
    assert [peek.model for peek in peeks] == names


@pytest.mark.parametrize(
    ("body", "form_type"),
    [
        (b"", None),
        (b"[" * 300_000, None),
        (b'{"model":"a","model":"b"}', None),
        (b"", FORM_TYPE),
        (FORM[:-8], FORM_TYPE),
        (FORM, b"multipart/form-data"),
        (FORM, FORM_TYPE + b";" + b"x" * 30_000),
        (FORM, b"multipart/form-data; boundary=\xff\xfe"),
    ],
)
@pytest.mark.asyncio
async def test_bad_bodies_are_told_and_do_no_harm(
    inspector: BodyInspector, body: bytes, form_type: bytes | None
) -> None:
    with stored(body) as file:
        for source in (body, file):
            with pytest.raises(BadRequestError):
                await inspector.inspect(source, form_type)
    assert (await inspector.inspect(JSON, None)).model == "a"


@pytest.mark.asyncio
async def test_an_inspector_that_died_is_started_again(inspector: BodyInspector) -> None:
    await inspector.inspect(JSON, None)
    assert inspector._child is not None
    inspector._child.kill()
    with pytest.raises(InternalError):
        await inspector.inspect(JSON, None)
    assert (await inspector.inspect(JSON, None)).model == "a"


@pytest.mark.asyncio
async def test_a_question_that_is_given_up_leaves_no_answer_to_the_next(
    inspector: BodyInspector,
) -> None:
    await inspector.inspect(JSON, None)
    large = b'{"model":"large","x":[%b0]}' % (b"0," * 5_000_000)
    task = asyncio.ensure_future(inspector.inspect(large, None))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (await inspector.inspect(JSON, None)).model == "a"


@pytest.mark.asyncio
async def test_closing_ends_the_child_and_can_be_repeated() -> None:
    inspector = BodyInspector()
    await inspector.inspect(JSON, None)
    child = inspector._child
    assert child is not None
    await inspector.close()
    await inspector.close()
    assert child.returncode is not None


@pytest.mark.asyncio
async def test_where_files_cannot_be_passed_a_thread_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.proxy.inspector._PASSES_FILES", False)
    inspector = BodyInspector()
    with stored(JSON) as file:
        for source in (JSON, file):
            assert (await inspector.inspect(source, None)).model == "a"
    assert inspector._child is None


@pytest.mark.asyncio
async def test_a_client_that_leaves_during_the_first_start_leaves_no_child_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    children: list[subprocess.Popen[bytes]] = []
    may_start = threading.Event()
    start = inspector_module._start_child

    def slow_start() -> tuple[subprocess.Popen[bytes], socket.socket]:
        assert may_start.wait(20)
        child, channel = start()
        children.append(child)
        return child, channel

    monkeypatch.setattr(inspector_module, "_start_child", slow_start)
    inspector = BodyInspector()
    task = asyncio.ensure_future(inspector.inspect(JSON, None))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    may_start.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (await inspector.inspect(JSON, None)).model == "a"
    task = asyncio.ensure_future(inspector.inspect(JSON, None))
    await inspector.close()
    await asyncio.wait([task])
    await inspector.close()
    assert children
    assert all(child.returncode is not None for child in children)


@pytest.mark.asyncio
async def test_closing_during_the_first_start_ends_the_child() -> None:
    inspector = BodyInspector()
    task = asyncio.ensure_future(inspector.inspect(JSON, None))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await inspector.close()
    await asyncio.wait([task])
    assert inspector._child is None


@pytest.mark.asyncio
async def test_an_inspector_that_cannot_be_started_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise OSError("no processes left")

    monkeypatch.setattr(inspector_module, "_start_child", fail)
    inspector = BodyInspector()
    with pytest.raises(InternalError, match="no processes left"):
        await inspector.inspect(JSON, None)
    await inspector.close()


@pytest.mark.parametrize("passes_files", [True, False])
@pytest.mark.asyncio
async def test_bodies_in_memory_and_on_disk_are_changed(
    inspector: BodyInspector, monkeypatch: pytest.MonkeyPatch, *, passes_files: bool
) -> None:
    """Also where no file can be passed to the child."""
    if not passes_files:
        monkeypatch.setattr("llama_router.proxy.inspector._PASSES_FILES", False)
    peek = Peek("a", stream=True)
    change = Change(make_rewrite(model="inner", strip=["stream"]), peek, 10**6)
    expected = b'{"model":"inner","x":"%b"}' % (b"y" * 500_000)
    found = await inspector.change(JSON, None, change, None)
    assert found == Changed(Peek("a", stream=False), len(expected), expected)
    with stored(JSON) as source, stored(b"") as target:
        found = await inspector.change(source, None, change, target)
        assert found == Changed(Peek("a", stream=False), len(expected))
        assert (target.tell(), target.read()) == (0, expected)
        with pytest.raises(BadRequestError, match="too large"):
            await inspector.change(source, None, Change(change.rewrite, peek, 9), target)
    assert (await inspector.inspect(JSON, None)).model == "a"
