import asyncio
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llama_router.control.secret import SECRET_HEADER
from llama_router.control.thread import ControlThread
from tests.support.control_facade import Router


@pytest.fixture
def folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A short place for temporary files, which has to be empty in the end."""
    # pytest's own folder must not be made in this one.
    tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="c-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def started() -> ControlThread:
    is_ready = threading.Event()
    control = ControlThread(Router(), version="1", on_ready=is_ready.set)
    control.start()
    assert is_ready.wait(20)
    return control


def get_health(control: ControlThread) -> httpx2.Response:
    transport = httpx2.HTTPTransport(uds=control.unix_path) if control.unix_path else None
    with httpx2.Client(transport=transport, trust_env=False) as client:
        host = f"127.0.0.1:{control.port}" if control.port else "control"
        headers = {SECRET_HEADER.decode(): control.secret}
        return client.get(f"http://{host}/v1/health", headers=headers)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no such sockets")
def test_it_serves_behind_a_socket_that_only_this_user_reaches(folder: Path) -> None:
    control = started()
    try:
        place = Path(control.unix_path).parent
        assert place.parent == folder
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert get_health(control).json() == {"status": "ok"}
    finally:
        control.close()


def test_where_the_path_is_too_long_it_serves_on_loopback_with_the_same_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    control = started()
    try:
        assert (control.unix_path, control.port > 0) == ("", True)
        assert get_health(control).status_code == 200
        with httpx2.Client(trust_env=False) as client:
            answer = client.get(f"http://127.0.0.1:{control.port}/v1/health")
        assert answer.status_code == 403
    finally:
        control.close()
    assert list(long.iterdir()) == []
    long.rmdir()


def test_closing_ends_the_thread_also_before_it_has_begun(folder: Path) -> None:
    control = ControlThread(Router(), version="1", on_ready=lambda: None)
    control.close()
    assert list(folder.iterdir()) == []
    again = started()
    again.close()
    again.close()
    assert not [each for each in threading.enumerate() if each.name == "control"]


def test_each_start_has_a_secret_of_its_own(folder: Path) -> None:
    one, other = (ControlThread(Router(), version="1", on_ready=lambda: None) for _ in range(2))
    try:
        assert one.secret != other.secret
        assert len(one.secret) >= 32
    finally:
        one.close()
        other.close()
    assert list(folder.iterdir()) == []
    assert asyncio.get_event_loop_policy() is not None


def test_the_folder_of_a_router_that_was_killed_goes_at_the_next_start(folder: Path) -> None:
    # Above any pid of Linux, and so nobody's.
    stale = folder / "llama-router-999999999-abc"
    stale.mkdir()
    (stale / "control.sock").touch()
    other = folder / f"llama-router-{os.getpid()}-living"
    other.mkdir()
    control = started()
    control.close()
    assert list(folder.iterdir()) == [other]
    other.rmdir()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no such sockets")
def test_a_folder_stays_if_it_is_a_link_or_somebody_elses_or_somebody_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder / "target"
    target.mkdir()
    (target / "control.sock").touch()
    link = folder / "llama-router-999999999-link"
    link.symlink_to(target)
    living = folder / "llama-router-999999998-other"
    living.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(living / "control.sock"))
        listening.listen()
        started().close()
        assert sorted(folder.iterdir()) == sorted([target, link, living])
        assert (living / "control.sock").exists()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: living.stat().st_uid + 1)
        started().close()
    assert living.exists()
    started().close()
    assert not living.exists()
    assert (target / "control.sock").exists()
    link.unlink()
    (target / "control.sock").unlink()
    target.rmdir()
