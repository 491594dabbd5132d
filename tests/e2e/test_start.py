"""Starts that must not happen, and what has happened when one has."""

import asyncio
import re
import socket
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import HOST, port_window
from tests.support.router_process import DEADLINE_S, launched, write_config

pytestmark = pytest.mark.asyncio


async def refused(folder: Path, config: Path | None, *arguments: str, **options: str) -> str:
    """Start a router that must refuse; give its status and what it says."""
    port = port_window()
    async with launched(folder, config, *arguments, port=port, env=options) as router:
        status = await router.ended()
        assert router.out == ""
        assert all(line.startswith("llama-router: ") for line in router.err.splitlines()), (
            router.err
        )
        return f"{status}: {router.err}"


async def test_a_taken_port_is_said_and_nothing_is_started(tmp_path: Path) -> None:
    config = write_config(tmp_path, startup_model="", models={"alpha": {}})
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with launched(tmp_path, config, port=port) as router:
            assert await router.ended() == 1
            assert f"cannot listen on {HOST} port {port}" in router.err
            assert "--port" in router.err
            assert not (tmp_path / "state").exists() or not list(router.state_dir.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("broken.yaml", "router:\n  port: [1\n", "broken.yaml:"),
        ("broken.json", '{\n"router": {"port": 1]\n}', "broken.json:2"),
        ("key.yaml", "router:\n  prot: 1\n", "key.yaml:2:3: router.prot: "),
        ("value.yaml", "router:\n  port: 0\n", "value.yaml:2:3: router.port: "),
        (
            "command.yaml",
            "models:\n- name: a\n  spawn:\n    command: [engine]\n",
            "command.yaml:4:5: models[0].spawn.command: ",
        ),
    ],
)
async def test_a_config_that_cannot_be_used_names_file_line_and_key(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    config = tmp_path / name
    config.write_text(text)
    said = await refused(tmp_path, config)
    assert said.startswith("2: ")
    assert expected in said


async def test_a_config_that_is_not_there_is_said(tmp_path: Path) -> None:
    said = await refused(tmp_path, tmp_path / "missing.json")
    assert said.startswith("2: ")
    assert "missing.json: cannot be read: No such file" in said


async def test_a_config_that_is_not_there_yet_is_created(tmp_path: Path) -> None:
    config = tmp_path / "new.yaml"
    async with launched(tmp_path, config, port=port_window()) as router:
        await router.prints("listens on")
        assert f"created {config}" in router.err
    assert "default_spawn:" in config.read_text()


async def test_a_misspelt_option_of_the_engine_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text("router: {memory_aware: false}\ndefaults:\n  parameters: {ctx-sise: 5}\n")
    async with launched(tmp_path, config, port=port_window()) as router:
        await router.says(f"{config}:3:16: defaults.parameters.ctx-sise: ")
        assert "did you mean ctx-size?" in router.err


async def test_a_models_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    config = write_config(tmp_path, models={"alpha": {}})
    typo = str(tmp_path / "typo")
    async with launched(tmp_path, config, "--models-dir", typo, port=port_window()) as router:
        await router.prints("listens on")
        assert f"the models folder {tmp_path / 'typo'} does not exist" in router.err


async def test_an_option_with_a_wrong_value_is_said(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    said = await refused(tmp_path, config, "--log-level", "loud")
    assert said.startswith("2: llama-router: command line: log_level: ")


async def test_a_config_before_the_command_serve_counts(tmp_path: Path) -> None:
    said = await refused(tmp_path, tmp_path / "missing.json", "serve")
    assert "missing.json" in said


async def test_an_unknown_startup_model_is_said(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text('version: "1.0"\nstartup_model: nobody\n')
    said = await refused(tmp_path, config)
    assert said.startswith("2: ")
    assert f"{config}:2:1: startup_model: 'nobody' is" in said
    assert "none of the models found, which begin with: " in said or "there are none" in said


async def test_a_startup_model_that_fails_ends_the_start_with_the_reason(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--exit-in-load", "3", startup_model="alpha", await_banner=False)
    assert await router.ended() == 1
    assert "llama-router: startup_model 'alpha': " in router.err
    assert "exited with status 3" in router.err
    assert router.out == ""
    assert len(fakes.engines) == 1


async def test_the_startup_model_is_loaded_before_anything_is_answered(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", startup_model="alpha", await_banner=False)
    alpha = await fakes.started("alpha")
    asked = asyncio.create_task(router.client.get("/props"), name="ask")
    await alpha.event("listening")
    assert router.out == ""
    await alpha.ready()
    assert (await asked).json()["model_alias"] == "alpha"
    await router.listening()


async def test_a_public_address_without_keys_is_refused_with_every_remedy(tmp_path: Path) -> None:
    remedies = ("router.host: 127.0.0.1", "router.api_keys", "router.allow_public_without_keys")
    config = write_config(tmp_path, router={"host": "0.0.0.0"})
    in_file = await refused(tmp_path, config)
    on_line = await refused(tmp_path, write_config(tmp_path), "--host", "0.0.0.0")
    for said in (in_file, on_line):
        assert said.startswith("2: ")
        for remedy in remedies:
            assert remedy in said
    assert re.search(rf"{config}:\d+:\d+: router\.host: ", in_file)
    assert "command line: router.host: " in on_line


@pytest.mark.parametrize("remedy", [{"api_keys": ["k"]}, {"allow_public_without_keys": True}])
async def test_a_public_address_with_a_remedy_is_served(
    start_router: StartRouter, remedy: dict[str, object]
) -> None:
    router = await start_router(router={"host": "0.0.0.0", **remedy})
    assert (await router.client.get("/v1/health")).status_code == 200


async def test_a_state_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = write_config(tmp_path)
    said = await refused(tmp_path, config, XDG_STATE_HOME=str(tmp_path / "file"))
    assert said.startswith("1: ")
    assert "Not a directory" in said
    assert "XDG_STATE_HOME" in said


async def test_where_no_config_can_be_written_the_defaults_hold(tmp_path: Path) -> None:
    # A file where a folder has to be: no rights of the user that runs this change that.
    (tmp_path / "config").write_text("")
    async with launched(tmp_path, None, port=port_window()) as router:
        await router.prints("listens on")
        assert "config.yaml: cannot be written: " in router.err
        assert "; until there is one, the defaults hold" in router.err
        assert (await router.client.post("/admin/reload")).status_code == 200


async def test_no_place_for_temporary_files_is_said(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    # The folders that are tried after TMPDIR exist on every machine.
    async with launched(
        tmp_path,
        config,
        port=port_window(),
        prelude="import tempfile; tempfile.tempdir = '/nowhere'",
    ) as router:
        assert await router.ended() == 1
        assert "No such file or directory" in router.err
        assert router.err.startswith("llama-router: ")


async def test_the_first_run_writes_its_config_and_says_how_to_get_models(tmp_path: Path) -> None:
    async with launched(tmp_path, None, port=port_window()) as router:
        banner = await router.listening()
        await router.prints("llama-router demo")
        assert "no models found" in router.out
        assert "--models-dir" in router.out
        (config,) = (tmp_path / "config").rglob("*.yaml")
        assert f"created {config}" in router.err
        assert banner.startswith("llama-router ")


async def test_serving_goes_on_when_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    prelude = "import os; r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)"
    async with launched(tmp_path, config, port=port_window(), prelude=prelude) as router:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    answer = await router.client.get("/v1/health")
                except httpx2.TransportError:
                    continue
                break
        assert answer.status_code == 200


async def test_a_temporary_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    config = write_config(tmp_path)
    async with launched(tmp_path, config, port=port_window(), env={"TMPDIR": str(long)}) as router:
        await router.listening()
        assert (await router.client.get("/v1/health")).status_code == 200
    assert list(long.iterdir()) == []
