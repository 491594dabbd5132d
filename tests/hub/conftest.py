from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from llama_router.hub.addresses import Addresses
from llama_router.hub.patience import Patience
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub, Repo, content

QUICK = Patience(
    attempts_max_count=5,
    connect_s=5,
    # Longer than any machine takes for what is not meant to stall.
    stall_s=30,
    delay_s=0.001,
    delay_max_s=0.002,
    retry_after_max_s=0.05,
)


@pytest.fixture
def quick() -> Patience:
    return QUICK


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[FakeHub]:
    files = {
        "README.md": b"hello",
        "tiny-Q4_K_M.gguf": content(300_000),
        "tiny-Q8_0.gguf": content(400_000, 2),
        "mmproj-F16.gguf": content(50_000, 3),
    }
    async with FakeHub({"org/tiny": Repo(files)}) as fake:
        yield fake


@pytest_asyncio.fixture
async def session(hub: FakeHub) -> AsyncIterator[HubSession]:
    async with HubSession(Addresses(hub.url), "", QUICK) as entered:
        yield entered
