"""Whatever a hub does: a download ends complete and verified, or in an error and can go on."""

import asyncio
import hashlib
import os
import random
from pathlib import Path

import huggingface_hub
import pytest

from llama_router.hub.addresses import Addresses
from llama_router.hub.download import Download, Hub
from llama_router.hub.errors import HubError
from llama_router.hub.names import is_sha256, parse_reference
from llama_router.hub.patience import Patience
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub, Faults, Repo, content

ROUNDS_COUNT = 25
HASTY = Patience(4, connect_s=5, stall_s=0.15, delay_s=0.001, delay_max_s=0.002)
# A slow machine is no fault.
PATIENT = Patience(4, connect_s=30, stall_s=30)
FILES = {
    "m-Q8_0-00001-of-00002.gguf": content(120_000, 1),
    "m-Q8_0-00002-of-00002.gguf": content(90_000, 2),
    "mmproj-F16.gguf": content(700, 3),
}


def swarm(chosen: random.Random) -> Faults:
    """Switch each kind of fault on or off, with as many of it as it falls."""

    def places(most: int) -> list[int]:
        count = chosen.choice((0, 0, 1, most))
        return [chosen.randrange(100_000) for _ in range(count)]

    def times() -> int:
        return chosen.choice((0, 0, 0, 1, 2, 100))

    return Faults(
        statuses=chosen.choices((429, 500, 503), k=chosen.choice((0, 0, 1, 3, 50))),
        retry_after=chosen.choice(("", "0", "soon")),
        cut_after=places(6),
        resets=chosen.choice((False, True)),
        stall_after=places(2),
        wrong_bytes=times(),
        ignore_range=times(),
        wrong_range=times(),
        not_satisfiable=times(),
        too_long=times(),
        compressed=chosen.choice((0, 0, 0, 1)),
        etags=chosen.choices(("x", "y"), k=chosen.choice((0, 0, 2))),
        api_statuses=chosen.choices((429, 502), k=chosen.choice((0, 0, 2))),
    )


def assert_nothing_is_wrong(cache: Path) -> None:
    """Under a blob's name there is what it is the hash of, or nothing."""
    assert huggingface_hub.scan_cache_dir(cache).warnings == []
    for path in (cache / "models--org--m" / "blobs").iterdir():
        data = path.read_bytes()
        if is_sha256(path.name):
            assert hashlib.sha256(data).hexdigest() == path.name
        elif path.suffix not in (".incomplete", ".part"):
            named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            assert named.hexdigest() == path.name


@pytest.mark.slow
@pytest.mark.asyncio
async def test_whatever_the_hub_does(tmp_path: Path) -> None:
    seed = int(os.environ.get("HUB_FAULTS_SEED", random.randrange(2**32)))  # noqa: S311
    print(f"seed: HUB_FAULTS_SEED={seed}")  # noqa: T201
    chosen = random.Random(seed)  # noqa: S311
    ended: dict[str, int] = {}
    async with asyncio.timeout(55), FakeHub({"org/m": Repo(FILES)}) as fake:
        for number in range(ROUNDS_COUNT):
            cache = tmp_path / str(number)
            async with HubSession(Addresses(fake.url), "", HASTY) as session:
                hub = Hub(session, cache)
                fake.faults = swarm(chosen)
                try:
                    await Download(hub, parse_reference("org/m")).run()
                    code = "complete"
                except HubError as error:
                    code = error.code
                    assert error.message  # noqa: PT017 - it may not be raised
                ended[code] = ended.get(code, 0) + 1
                if (cache / "models--org--m").exists():
                    assert_nothing_is_wrong(cache)
                assert hub.needs == {}
            fake.faults = Faults()
            async with HubSession(Addresses(fake.url), "", PATIENT) as session:
                pulled = await Download(Hub(session, cache), parse_reference("org/m")).run()
            assert_nothing_is_wrong(cache)
            folder = Path(pulled.paths[0]).parent
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    print(ended)  # noqa: T201
    assert ended["complete"] > 0
