"""A router that will be killed: runs the tree of tree.py under a supervisor, says its pids, stays.

Arguments: state directory, kind of loop.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.supervised import Supervised


async def main() -> None:
    supervised = Supervised(Path(sys.argv[1]))
    await supervised.supervisor.start()
    supervised.spawn_python(Path(__file__).with_name("tree.py").read_text("utf-8"))
    pids = await supervised.wait_line("pids ")
    guardian = supervised.supervisor._host.guardian_pid  # type: ignore[attr-defined] # POSIX
    print(guardian, pids, flush=True)  # noqa: T201 - the answer
    await asyncio.get_running_loop().create_future()


factory = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
