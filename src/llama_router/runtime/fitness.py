"""Whether a model of the hub would fit into this machine's memory, before it is downloaded.

Of one file of the repository the header is read, as it is where the engine's share of memory
beside the weights can be told from. The weights of each quantisation are the size of its files.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from llama_router.catalog import footprint
from llama_router.catalog.gguf_cursor import GgufError
from llama_router.engines.devices import CPU
from llama_router.hub.choice import Contents, RepoFile, Variant
from llama_router.hub.errors import HubError
from llama_router.hub.progress import in_words

_log = logging.getLogger(__name__)

# A vocabulary of 260,000 tokens, the largest in use, takes some 14 MiB.
_HEADER_BYTES = 16 * 1024 * 1024
# The least context that llama.cpp fits a model to (--fit-ctx).
_ARGUMENTS = ("--ctx-size", "4096")
# Where no header can be read: what an engine takes beside its weights, roughly.
_ROUGH_SHARE = 0.1
_ROUGH_BYTES = 512 * 1024 * 1024
_REMEMBERED_MAX_COUNT = 100

Fetch = Callable[[str, str, str, Path, int], Awaitable[int]]


class HubFitness:
    """Judges models of the hub. ``budgets``: what engines may take of each device, in bytes.

    ``fetch`` brings the first bytes of a repository's file, at a commit, to a path.
    """

    def __init__(self, budgets: Callable[[], Mapping[str, int]], fetch: Fetch) -> None:
        self._budgets = budgets
        self._fetch = fetch
        self._lock = asyncio.Lock()
        # Bytes beside the weights by repository and commit; None where the header did not tell.
        self._beside: dict[tuple[str, str], int | None] = {}

    async def judge(self, contents: Contents, variant: Variant) -> tuple[str, str]:
        """Return yes, no or unknown, and why."""
        budgets = self._budgets()
        all_bytes = sum(budgets.values())
        if not all_bytes:
            return "unknown", "the router does not look at memory here"
        beside = await self._of(contents)
        weights = variant.size_bytes
        projector = variant.projector.size_bytes if variant.projector else 0
        if beside is None:
            needed = int(weights * (1 + _ROUGH_SHARE)) + projector + _ROUGH_BYTES
            basis = "judged by the size of its files alone"
        else:
            needed = weights + projector + beside
            basis = "judged by the header, with 4096 tokens of context"
        cards_bytes = all_bytes - budgets.get(CPU, 0)
        need = f"it needs about {in_words(needed)}"
        if cards_bytes and needed <= cards_bytes:
            return "yes", f"{need}, which graphics cards have ({basis})"
        if needed <= all_bytes:
            where = "which takes RAM beside graphics cards" if cards_bytes else "which the RAM has"
            return "yes", f"{need}, {where} ({basis})"
        return "no", f"{need}, and models may take {in_words(all_bytes)} ({basis})"

    async def _of(self, contents: Contents) -> int | None:
        key = (contents.repo, contents.commit)
        async with self._lock:
            if key not in self._beside:
                while len(self._beside) >= _REMEMBERED_MAX_COUNT:
                    self._beside.pop(next(iter(self._beside)))
                self._beside[key] = await self._look(contents)
            return self._beside[key]

    async def _look(self, contents: Contents) -> int | None:
        whole = [one for one in contents.variants if not one.missing]
        if not whole:
            return None
        # The smallest is as good as any: what differs between them is the weights.
        file = min(whole, key=lambda one: one.size_bytes).files[0]
        try:
            with tempfile.TemporaryDirectory(prefix="llama-router-header-") as folder:
                path = Path(folder, "header.gguf")
                asked_bytes = min(_HEADER_BYTES, file.size_bytes)
                await self._fetch(contents.repo, contents.commit, file.path, path, asked_bytes)
                return await asyncio.to_thread(_beside_weights, path, file)
        except (HubError, GgufError, OSError) as error:
            _log.info("the header of %s %s does not help: %s", contents.repo, file.path, error)
            return None


def _beside_weights(path: Path, file: RepoFile) -> int:
    """Return what an engine takes beside the weights. Raises GgufError, OSError."""
    # As long as the whole file, of which the rest is a hole: the reader checks what it is told.
    os.truncate(path, file.size_bytes)
    found = footprint.expect(path, _ARGUMENTS, environment={})
    return found.total - sum(need.weights for need in found.needs)
