import asyncio
import os
import sys
from importlib import import_module
from unittest.mock import Mock

import pytest

from llama_router.engines.host import HostListener
from llama_router.engines.launch import LaunchSpec, Readiness

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="Windows only")


def test_a_job_ends_with_all_its_processes() -> None:
    JobHost = import_module("llama_router.engines.platform.windows").JobHost  # noqa: N806 - a class
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']).wait()"

    async def run() -> None:
        reaped = asyncio.Event()
        listener = Mock(spec=HostListener)
        listener.on_reaped.side_effect = lambda _: reaped.set()
        host = JobHost(listener)
        await host.start()
        listener.on_spawned.side_effect = host.kill
        host.spawn(
            LaunchSpec(
                model="m",
                generation=1,
                argv=(sys.executable, "-c", program),
                env=dict(os.environ),
                host="127.0.0.1",
                port=1,
                health_path="/",
                readiness=Readiness.PUSHED,
            ),
            hold_stdin=True,
        )
        async with asyncio.timeout(20):
            await reaped.wait()
        listener.on_exited.assert_called_once_with(1, 1)
        await host.close()

    asyncio.run(run())
