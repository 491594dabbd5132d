import asyncio
import sys
from pathlib import Path
from typing import cast

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.config.schema import RouterSettings
from llama_router.core.machine import Core
from llama_router.runtime.applying import core_settings
from llama_router.runtime.appraisal import Appraiser
from llama_router.runtime.config_file import ConfigFile
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.keys import Keys
from llama_router.runtime.machine import Machine
from llama_router.runtime.memory import Memory
from llama_router.runtime.upkeep import Upkeep
from llama_router.store.keys import KeyFile
from tests.support.changing import Room

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="folders are watched by a POSIX child"),
]


async def test_models_that_come_while_it_runs_are_served_and_a_broken_config_is_told(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    file = tmp_path / "config.yaml"
    text = f"router:\n  memory_aware: false\n  models_dirs: [{models}]\n"
    file.write_text(text)
    source = ConfigFile(file)
    reading = source.read()
    desk, room = Desk(), Room()
    upkeep = Upkeep(
        source=source,
        reading=reading,
        desk=desk,
        keys=Keys(KeyFile(tmp_path / "keys.json"), RouterSettings(), lambda: None),
        state_dir=tmp_path,
        env={},
        home=tmp_path,
        has_caches=False,
    )
    assert upkeep.config_problem() == ""
    assert set(upkeep.facades) == {"configuration", "settings", "profiles", "keys", "downloads"}
    roster = await upkeep.take_stock(reading.config)
    memory = Memory(
        roster=roster,
        settings=reading.config.router,
        machine=Machine(),
        appraiser=Appraiser(machine=Machine(), env={}, found_llama_server=None, remembered=dict),
        store=None,
        post=desk.post,
        engines=room,
    )
    core = Core(await memory.appraise(), settings=core_settings(reading.config, roster))
    desk.open(core, roster, cast("EngineRoom", room), upkeep.peers)
    followed = asyncio.Event()
    upkeep.open(memory, roster, [lambda _config: followed.set()])
    try:
        await upkeep.start()
        write_model(models / "one.gguf", "one", name="one")
        async with asyncio.timeout(30):
            while "one" not in desk.roster:
                followed.clear()
                await followed.wait()
        await upkeep.changes.rescan()
        assert desk.resolve("one").model == "one"
        file.write_text("what: is this\n")
        with pytest.raises(Exception, match="what"):
            await upkeep.changes.reload("a test")
        assert upkeep.config_problem().startswith(f"{file}:1:1: what")
    finally:
        await upkeep.close()
        await upkeep.close()
        desk.close()
