import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_router.catalog import header_index, wire
from llama_router.catalog.tiny import write_model
from llama_router.config.schema import Config
from llama_router.runtime import scan_process
from llama_router.runtime import stock as stocks
from llama_router.runtime.stock import Scan, Stock


def model(path: Path, text: str = "one two three") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (made,) = write_model(path, text, name=path.stem)
    return made


def config_for(*folders: Path) -> Config:
    return Config.model_validate({"router": {"models_dirs": [str(folder) for folder in folders]}})


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    one = Stock(env={}, home=tmp_path / "home", index=tmp_path / "state" / "index")
    yield one
    one.close()


def ids(scan: Scan) -> list[str]:
    return [model.id for model in scan.models]


@pytest.mark.asyncio
async def test_scans_say_what_has_changed_since_the_last(stock: Stock, tmp_path: Path) -> None:
    config = config_for(tmp_path / "m")
    for name in ("a", "b", "c"):
        model(tmp_path / "m" / f"{name}.gguf")

    first = await stock.take(config, is_urgent=True)
    assert (ids(first), first.added, first.problem) == (["a", "b", "c"], ("a", "b", "c"), "")
    assert not first.is_same

    (tmp_path / "m" / "a.gguf").unlink()
    model(tmp_path / "m" / "b.gguf", "a longer text than before")
    model(tmp_path / "m" / "d.gguf")
    second = await stock.take(config)
    assert (second.added, second.changed, second.removed) == (("d",), ("b",), ("a",))

    third = await stock.take(config)
    assert third.is_same
    assert ids(third) == ["b", "c", "d"]


@pytest.mark.asyncio
async def test_what_has_not_changed_is_the_same_object(stock: Stock, tmp_path: Path) -> None:
    config = config_for(tmp_path / "m")
    model(tmp_path / "m" / "a.gguf")
    model(tmp_path / "m" / "b.gguf")

    first = await stock.take(config)
    model(tmp_path / "m" / "b.gguf", "a longer text than before")
    second = await stock.take(config)

    assert second.models[0] is first.models[0]
    assert second.models[1] is not first.models[1]


@pytest.mark.asyncio
async def test_headers_are_remembered_by_the_next_router(tmp_path: Path) -> None:
    config = config_for(tmp_path / "m")
    path = model(tmp_path / "m" / "a.gguf")
    index = tmp_path / "index"
    long_ago_ns = path.stat().st_ctime_ns - 10 * header_index._RACY_NS
    os.utime(path, ns=(long_ago_ns, long_ago_ns))

    counts = []
    for _ in range(2):
        one = Stock(env={}, home=tmp_path / "home", index=index)
        scan = await one.take(config)
        counts.append((scan.read_count, scan.known_count, len(scan.models)))
        one.close()

    # Made a moment ago, the file is not trusted before it is older.
    assert counts[0] == (1, 0, 1)
    assert sum(counts[1][:2]) == 1


@pytest.mark.asyncio
async def test_caches_are_where_the_environment_says(tmp_path: Path) -> None:
    cache = tmp_path / "home" / ".cache" / "llama.cpp"
    model(cache / "org_sea.gguf")
    with_caches = Stock(env={"HOME": "x", "HF_TOKEN": "secret"}, home=tmp_path / "home", index=None)
    without = Stock(env={}, home=tmp_path / "home", index=None, has_caches=False)

    assert ids(await with_caches.take(config_for())) == ["org_sea"]
    assert ids(await without.take(config_for())) == []
    assert "secret" not in str(with_caches.sources(config_for()))
    with_caches.close()
    without.close()


@pytest.mark.asyncio
async def test_scan_that_fails_leaves_what_was_known(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(tmp_path / "m")
    model(tmp_path / "m" / "a.gguf")
    await stock.take(config)

    monkeypatch.setattr(sys, "executable", "/bin/true")
    failed = await stock.take(config)

    assert ids(failed) == ["a"]
    assert failed.problem
    assert failed.is_same
    assert "could not be looked at" in caplog.text


@pytest.mark.asyncio
async def test_without_a_process_the_scan_is_done_here(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "m" / "a.gguf")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))

    scan = await stock.take(config_for(tmp_path / "m"))

    assert (ids(scan), scan.problem) == (["a"], "")


@pytest.mark.asyncio
async def test_process_that_says_nothing_is_given_up(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_process, "_LOOK_S", 0.001)
    monkeypatch.setattr(scan_process, "start_helper", mute_process)

    async with asyncio.timeout(50):
        scan = await stock.take(config_for(tmp_path))

    assert "said nothing" in scan.problem
    assert scan.problem in scan.warnings[0]
    # Nobody knows where it was.
    assert stock.silent.folders == ()


@pytest.mark.asyncio
async def test_whoever_waits_for_a_scan_may_leave(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[bytes]] = []
    loop, started = asyncio.get_running_loop(), asyncio.Event()

    def start(module: str) -> "subprocess.Popen[bytes]":
        children.append(mute_process(module))
        loop.call_soon_threadsafe(started.set)
        return children[-1]

    monkeypatch.setattr(scan_process, "start_helper", start)
    task = asyncio.create_task(stock.take(config_for(tmp_path)))
    async with asyncio.timeout(50):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(children[0].wait) == -signal.SIGKILL


@pytest.mark.asyncio
async def test_closed_stock_starts_nothing(stock: Stock, tmp_path: Path) -> None:
    stock.close()

    scan = await stock.take(config_for(tmp_path))

    assert (scan.models, scan.problem) == ((), "the router ends")


def mute_process(_module: str = "") -> "subprocess.Popen[bytes]":
    """A process that listens and never answers."""
    return subprocess.Popen(
        ["/bin/sh", "-c", "while read line; do :; done"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.asyncio
async def test_whoever_waits_for_the_start_is_told_how_far_it_is(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [wire.Progress(300), wire.Progress(700, Path("/nas")), wire.Done(0, 700, 0)]
    monkeypatch.setattr(stock, "_answers", lambda _request: iter(answers))
    monkeypatch.setattr(stocks, "_TELL_INTERVAL_S", 0)
    with caplog.at_level("INFO"):
        await stock.take(Config())
        assert caplog.messages == []
        await stock.take(Config(), is_urgent=True)
    said = "looking for models: {} files so far"
    assert caplog.messages == [said.format(300), said.format(700) + ", now in /nas"]


@pytest.mark.asyncio
async def test_a_folder_that_is_not_there_is_told_of_once_as_long_as_it_is_so(
    stock: Stock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    typo = tmp_path / "typo"
    told = f"the models folder {typo} does not exist"

    await stock.take(config_for(typo))
    await stock.take(config_for(typo))
    assert caplog.messages == [told]

    model(typo / "a.gguf")
    await stock.take(config_for(typo))
    assert caplog.messages == [told]
    (typo / "a.gguf").unlink()
    typo.rmdir()
    await stock.take(config_for(typo))
    assert caplog.messages == [told, told]
