"""One file through every fault of a hub."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from llama_router.hub import fetch as fetches
from llama_router.hub.addresses import Addresses
from llama_router.hub.choice import RepoFile
from llama_router.hub.errors import HubError
from llama_router.hub.fetch import Fetch
from llama_router.hub.layout import RepoFolder
from llama_router.hub.listing import file_url
from llama_router.hub.part import Part, disk_error
from llama_router.hub.patience import Patience
from llama_router.hub.session import HubSession
from llama_router.hub.throttle import Throttle
from tests.support.fake_hub import COMMIT, FakeHub, Repo

NAME = "tiny-Q4_K_M.gguf"
SIZE = 300_000
Run = Callable[[], Awaitable[None]]


class Notes:
    def __init__(self) -> None:
        self.have_bytes: list[int] = []
        self.texts: list[str] = []

    def have(self, _file: RepoFile, have_bytes: int) -> None:
        self.have_bytes.append(have_bytes)

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def folder(tmp_path: Path) -> RepoFolder:
    return RepoFolder(tmp_path, "org/tiny")


def file_of(hub: FakeHub, name: str = NAME) -> RepoFile:
    repo = hub.repos["org/tiny"]
    return RepoFile(name, len(repo.files[name]), repo.blob(name))


@pytest.fixture
def run(hub: FakeHub, session: HubSession, folder: RepoFolder, notes: Notes) -> Run:
    taken = Taken()
    hub.before_cut = lambda: taken.wait_for(hub.sent_bytes)

    async def run() -> None:
        await fetch_with(session, file_of(hub), folder, notes, taken)

    return run


class Taken(Throttle):
    """Knows how much has been read."""

    def __init__(self) -> None:
        super().__init__()
        self._size_bytes = 0
        self._grown = asyncio.Event()

    async def take(self, size_bytes: int) -> None:
        await super().take(size_bytes)
        self._size_bytes += size_bytes
        self._grown.set()

    async def wait_for(self, size_bytes: int) -> None:
        while self._size_bytes < size_bytes:
            self._grown.clear()
            await self._grown.wait()


async def fetch_with(
    session: HubSession,
    file: RepoFile,
    folder: RepoFolder,
    notes: Notes,
    throttle: Throttle | None = None,
) -> None:
    await Fetch(
        session,
        folder,
        file,
        file_url(session, "org/tiny", COMMIT, file.path),
        throttle=throttle or Throttle(),
        gate=asyncio.Semaphore(4),
        report=notes,
    ).run()


def left_of_an_earlier_process(hub: FakeHub, folder: RepoFolder, data: bytes) -> None:
    file = file_of(hub)
    part = Part(folder, file.blob, file.size_bytes)
    part.open()
    part.restart(f'"{file.blob}"')
    part.write(data)
    part.close()


def whole(hub: FakeHub, folder: RepoFolder, name: str = NAME) -> bool:
    file = file_of(hub, name)
    names = [path.name for path in folder.blobs.iterdir()]
    content = hub.repos["org/tiny"].files[name]
    return names == [file.blob] and folder.blob(file.blob).read_bytes() == content


def ranges(hub: FakeHub) -> list[str]:
    return [asked for _path, asked, _token in hub.requests]


@pytest.mark.asyncio
async def test_a_file_comes_whole(run: Run, hub: FakeHub, folder: RepoFolder, notes: Notes) -> None:
    await run()
    assert whole(hub, folder)
    assert ranges(hub) == [""]
    assert notes.have_bytes[-1] == SIZE


@pytest.mark.asyncio
async def test_small_files_are_verified_as_git_names_them(
    session: HubSession, hub: FakeHub, folder: RepoFolder, notes: Notes
) -> None:
    await fetch_with(session, file_of(hub, "README.md"), folder, notes)
    assert whole(hub, folder, "README.md")


@pytest.mark.asyncio
async def test_an_empty_file_needs_no_question(
    session: HubSession, hub: FakeHub, folder: RepoFolder, notes: Notes
) -> None:
    hub.repos["org/tiny"].files["empty.gguf"] = b""
    await fetch_with(session, file_of(hub, "empty.gguf"), folder, notes)
    assert whole(hub, folder, "empty.gguf")
    assert hub.requests == []


@pytest.mark.asyncio
async def test_cut_connections_are_resumed_where_they_broke(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    # More often than it would be tried in vain: each time something has come.
    hub.faults.cut_after = [30_000] * 8
    await run()
    assert whole(hub, folder)
    assert len(hub.requests) == 9
    assert all(asked.startswith("bytes=") for asked in ranges(hub)[1:])


@pytest.mark.asyncio
async def test_after_a_reset_it_goes_on_with_what_has_come(
    run: Run, hub: FakeHub, folder: RepoFolder, notes: Notes
) -> None:
    hub.faults.resets = True
    hub.faults.cut_after = [100_000]
    await run()
    assert whole(hub, folder)
    first, second = ranges(hub)
    assert first == ""
    assert int(second.strip("bytes=-") or 0) in {0, *notes.have_bytes}


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_hub_in_trouble_is_asked_again(
    run: Run, hub: FakeHub, folder: RepoFolder, status: int
) -> None:
    hub.faults.statuses = [status, status]
    await run()
    assert whole(hub, folder)
    assert len(hub.requests) == 3


@pytest.mark.asyncio
async def test_a_hub_that_says_when_is_not_asked_before(
    run: Run, hub: FakeHub, notes: Notes
) -> None:
    hub.faults.statuses = [429]
    hub.faults.retry_after = "1"
    loop = asyncio.get_running_loop()
    started = loop.time()
    await run()
    # One second, cut down to what the patience of these tests allows.
    assert loop.time() - started >= 0.05
    assert any("429" in text for text in notes.texts)


@pytest.mark.asyncio
async def test_a_hub_that_stays_in_trouble_is_given_up_and_the_part_stays(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    hub.faults.cut_after = [100_000]
    hub.faults.statuses = []
    left_of_an_earlier_process(hub, folder, hub.repos["org/tiny"].files[NAME][:5000])
    hub.faults.statuses = [503] * 100
    with pytest.raises(HubError, match="503") as raised:
        await run()
    assert raised.value.code == "unreachable"
    assert len(hub.requests) == 5
    hub.faults.statuses = []
    hub.faults.cut_after = []
    await run()
    assert whole(hub, folder)
    assert ranges(hub)[-1] == "bytes=5000-"


@pytest.mark.asyncio
async def test_too_many_requests_are_called_so(run: Run, hub: FakeHub) -> None:
    hub.faults.statuses = [429] * 100
    with pytest.raises(HubError) as raised:
        await run()
    assert raised.value.code == "rate_limited"


@pytest.mark.asyncio
async def test_a_stall_is_noticed_and_what_had_come_is_kept(
    hub: FakeHub, folder: RepoFolder, notes: Notes, quick: Patience
) -> None:
    hub.faults.stall_after = [100_000]
    # A slow machine may be at this before all has come that comes; only then it asks once more.
    impatient = msgspec.structs.replace(quick, attempts_max_count=50, stall_s=0.3)
    async with HubSession(Addresses(hub.url), "", impatient) as session:
        await fetch_with(session, file_of(hub), folder, notes)
    assert whole(hub, folder)
    asked = ranges(hub)
    assert len(asked) > 1
    kept_bytes = [int(one.strip("bytes=-") or 0) for one in asked]
    assert kept_bytes == sorted(kept_bytes)
    assert set(kept_bytes) <= {0, *notes.have_bytes}


@pytest.mark.asyncio
async def test_nobody_listening_is_said_in_words(
    hub: FakeHub, folder: RepoFolder, notes: Notes, quick: Patience
) -> None:
    async with HubSession(Addresses("http://127.0.0.1:9"), "", quick) as session:
        with pytest.raises(HubError, match="cannot be reached") as raised:
            await fetch_with(session, file_of(hub), folder, notes)
    assert raised.value.code == "unreachable"


@pytest.mark.asyncio
async def test_a_hub_that_ignores_the_range_does_not_spoil_the_file(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    hub.faults.cut_after = [100_000]
    hub.faults.ignore_range = 1
    await run()
    assert whole(hub, folder)
    assert len(hub.requests) == 2


@pytest.mark.asyncio
async def test_another_part_than_asked_for_is_not_taken(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    hub.faults.cut_after = [100_000]
    hub.faults.wrong_range = 1
    await run()
    assert whole(hub, folder)
    assert ranges(hub) == ["", "bytes=100000-", ""]


@pytest.mark.asyncio
async def test_a_changed_file_is_begun_again(run: Run, hub: FakeHub, folder: RepoFolder) -> None:
    left_of_an_earlier_process(hub, folder, b"x" * 5000)
    hub.faults.etags = ["other", "other"]
    await run()
    assert whole(hub, folder)
    assert ranges(hub) == ["bytes=5000-"]


@pytest.mark.asyncio
async def test_a_file_of_another_size_ends_in_an_error(run: Run, hub: FakeHub) -> None:
    asked = file_of(hub)
    hub.repos["org/tiny"].files[NAME] += b"and more"
    session_file = RepoFile(asked.path, asked.size_bytes, asked.blob)
    assert session_file.size_bytes == SIZE
    hub.faults.too_long = 100
    with pytest.raises(HubError, match="sends 300012 bytes of a file of 300008") as raised:
        await run()
    assert raised.value.code == "bad_answer"
    assert len(hub.requests) == 3


@pytest.mark.asyncio
async def test_a_part_of_full_size_is_verified_without_a_question(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    left_of_an_earlier_process(hub, folder, hub.repos["org/tiny"].files[NAME])
    await run()
    assert whole(hub, folder)
    assert hub.requests == []


@pytest.mark.asyncio
async def test_a_refused_range_begins_again(run: Run, hub: FakeHub, folder: RepoFolder) -> None:
    left_of_an_earlier_process(hub, folder, hub.repos["org/tiny"].files[NAME][:5000])
    hub.faults.not_satisfiable = 1
    await run()
    assert whole(hub, folder)
    assert ranges(hub) == ["bytes=5000-", ""]


@pytest.mark.asyncio
async def test_a_wrong_hash_is_tried_once_more(
    run: Run, hub: FakeHub, folder: RepoFolder, notes: Notes
) -> None:
    hub.faults.wrong_bytes = 1
    await run()
    assert whole(hub, folder)
    assert any("hash is wrong" in text for text in notes.texts)


@pytest.mark.asyncio
async def test_a_hash_that_stays_wrong_leaves_nothing(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    hub.faults.wrong_bytes = 100
    with pytest.raises(HubError) as raised:
        await run()
    assert raised.value.code == "wrong_hash"
    assert list(folder.blobs.iterdir()) == []
    assert len(hub.requests) == 2


@pytest.mark.asyncio
async def test_a_spoiled_part_of_an_earlier_process_costs_one_more_download(
    run: Run, hub: FakeHub, folder: RepoFolder
) -> None:
    left_of_an_earlier_process(hub, folder, b"x" * 5000)
    await run()
    assert whole(hub, folder)
    assert ranges(hub) == ["bytes=5000-", ""]


@pytest.mark.asyncio
async def test_what_is_compressed_is_refused(run: Run, hub: FakeHub) -> None:
    hub.faults.compressed = 1
    with pytest.raises(HubError, match="compresses") as raised:
        await run()
    assert raised.value.code == "bad_answer"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "code"), [(401, "unauthorized"), (403, "unauthorized"), (404, "not_found")]
)
async def test_refusals_are_not_repeated(run: Run, hub: FakeHub, status: int, code: str) -> None:
    hub.faults.statuses = [status]
    with pytest.raises(HubError) as raised:
        await run()
    assert raised.value.code == code
    assert len(hub.requests) == 1


@pytest_asyncio.fixture
async def content_server(hub: FakeHub) -> AsyncIterator[FakeHub]:
    repo: Repo = hub.repos["org/tiny"]
    async with FakeHub({"org/tiny": repo}) as other:
        yield other


@pytest.mark.asyncio
async def test_the_token_does_not_go_along_to_another_server(
    hub: FakeHub, content_server: FakeHub, folder: RepoFolder, notes: Notes, quick: Patience
) -> None:
    hub.faults.redirect_to = content_server.url
    async with HubSession(Addresses(hub.url), "hf_secret", quick) as session:
        await fetch_with(session, file_of(hub), folder, notes)
    assert whole(hub, folder)
    assert [token for _path, _range, token in hub.requests] == ["Bearer hf_secret"]
    assert [token for _path, _range, token in content_server.requests] == [""]


@pytest.mark.asyncio
async def test_a_content_server_that_refuses_is_asked_for_anew(
    run: Run, hub: FakeHub, content_server: FakeHub, folder: RepoFolder
) -> None:
    hub.faults.redirect_to = content_server.url
    content_server.faults.statuses = [403]
    content_server.faults.cut_after = [100_000]
    await run()
    assert whole(hub, folder)
    assert len(hub.requests) == 3


@pytest.mark.asyncio
async def test_it_goes_nowhere_else(run: Run, hub: FakeHub) -> None:
    for address in ("http://169.254.169.254/latest", "http://example.com", "file:///etc/passwd"):
        hub.faults.redirect_to = address
        with pytest.raises(HubError) as raised:
            await run()
        assert raised.value.code in ("forbidden_address", "bad_request")


@pytest.mark.asyncio
async def test_redirects_in_circles_end(run: Run, hub: FakeHub) -> None:
    hub.faults.redirect_circle = True
    with pytest.raises(HubError, match="circles"):
        await run()


@pytest.mark.asyncio
async def test_a_full_disk_keeps_the_part(
    run: Run, hub: FakeHub, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "_WRITE_BYTES", 1)
    written = Part.write

    def write(part: Part, data: bytes) -> None:
        if part.have_bytes > 100_000:
            raise disk_error(part._path, OSError(errno.ENOSPC, "No space left on device"))
        written(part, data)

    monkeypatch.setattr(Part, "write", write)
    with pytest.raises(HubError) as raised:
        await run()
    assert raised.value.code == "disk_full"
    assert len(hub.requests) == 1
    monkeypatch.setattr(Part, "write", written)
    await run()
    assert whole(hub, folder)
    assert int(ranges(hub)[1].strip("bytes=-")) > 100_000
