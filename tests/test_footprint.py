"""What processes of ours import. Libraries are most of their memory and of the time they start in.

Sizes would depend on the machine; that a library is there at all does not.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import port_window

WEB = ("fastapi", "starlette", "uvicorn")
# Each with what it has no use for.
PROCESSES = {
    # The base of every command; what a command needs beyond it is its own.
    "llama_router.cli.main": ("asyncio", "pydantic", "ruamel", "rich", "aiohttp", *WEB),
    # FastAPI is imported by the control plane's thread, beside the rest of the start.
    "llama_router.runtime.app": ("aiohttp", "typer", "rich", "watchfiles", *WEB),
    "llama_router.catalog.worker": ("asyncio", "pydantic", "ruamel", "typer", "aiohttp", *WEB),
    "llama_router.catalog.watcher": ("asyncio", "pydantic", "ruamel", "typer", "aiohttp", *WEB),
    "llama_router.hub.worker": ("pydantic", "ruamel", "typer", "psutil", *WEB),
    "llama_router.proxy.inspector_child": ("asyncio", "pydantic", "ruamel", "typer", *WEB),
    "llama_router.engines.guardian": ("asyncio", "msgspec", "pydantic", "logging", *WEB),
}
# aiohttp is the hub process's, and for lists of peers; the others are the engines'.
NOT_THE_ROUTERS = {"aiohttp", "rich", "xllamacpp", "numpy"}
RUN = """
import asyncio, sys
from http.client import HTTPConnection
from pathlib import Path
from llama_router.config.schema import Config
from llama_router.runtime.app import Router

async def main(folder, port):
    config = Config.model_validate({"router": {"port": port, "base_port": port + 1}})
    router = Router(config, state_dir=folder, env={"PATH": ""}, home=folder)
    assert await router.start()
    try:
        asking = HTTPConnection("127.0.0.1", port)
        await asyncio.to_thread(asking.request, "GET", "/v1/models")
        assert (await asyncio.to_thread(asking.getresponse)).status == 200
        asking.close()
        print(*sys.modules)
    finally:
        await router.close()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def imported_by(code: str, *arguments: str) -> set[str]:
    """The packages that a new process has after this."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=90)
    return {name.partition(".")[0] for name in child.stdout.decode().split()}


@pytest.mark.parametrize("module", PROCESSES)
def test_a_process_begins_without_libraries_that_it_does_not_use(module: str) -> None:
    if sys.platform == "win32" and module.endswith("guardian"):
        pytest.skip("there is none on Windows")
    assert not imported_by(f"import sys, {module}; print(*sys.modules)") & {*PROCESSES[module]}


def test_a_router_at_work_has_only_its_own(tmp_path: Path) -> None:
    found = imported_by(RUN, str(tmp_path), str(port_window()))
    assert {"fastapi", "psutil"} <= found
    assert not found & NOT_THE_ROUTERS
