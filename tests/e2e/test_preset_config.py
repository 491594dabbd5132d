"""llama-server's preset file, run as it is, with real processes."""

from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import launched, with_engine_ports

pytestmark = pytest.mark.asyncio


async def test_a_preset_runs_as_llama_server_would(tmp_path: Path, fakes: FakeEngines) -> None:
    model = tmp_path / "models" / "small.gguf"
    model.parent.mkdir()
    write_model(model, "small", name="small")
    preset = tmp_path / "models.ini"
    preset.write_text(
        "[*]\nc = 512 ; for all\n[small]\nmodel = models/small.gguf\nalias = tiny\n"
        "LLAMA_ARG_N_PREDICT = 7\nmlock = on\nload-on-startup = true\nport = 1\n"
        "temp = 0.7\nfa = 1\n"
    )
    programs = fakes.install(tmp_path).parent
    env = {"PATH": f"{programs}:/usr/bin:/bin"}
    port = port_window()
    prelude = with_engine_ports(port + 1)
    async with launched(tmp_path, preset, port=port, env=env, prelude=prelude) as router:
        await router.listening()
        await router.says("1 setting has no effect here (small.port)")
        engine = await fakes.started()
        await router.becomes("small", "loaded")
        argv = " ".join(engine.argv)
        for option in (
            "--ctx-size 512",
            "--predict 7",
            "--load-mode mmap+mlock",
            "--temp 0.7",
            str(model),
        ):
            assert option in argv
        assert (await router.client.post(CHAT, json=body("tiny"))).status_code == 200
