"""The first thing that a newcomer sees."""

import asyncio
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from llama_router.catalog.demo import DEMO_TEXTS
from tests.support.chat import deltas
from tests.support.ports import port_window
from tests.support.router_process import DEADLINE_S, launched, with_engine_ports
from tests.support.tools import need_embedded

pytestmark = [pytest.mark.asyncio, pytest.mark.embedded]


def teller(answer: str) -> str:
    """Give the demo model whose story an answer begins like."""
    words = " ".join(answer.split()[:5])
    (name,) = [name for name, text in DEMO_TEXTS.items() if words and words in text]
    return name


async def test_both_printed_snippets_are_answered_by_different_models_with_a_swap_between(
    tmp_path: Path,
) -> None:
    need_embedded()
    port = port_window()
    arguments = ("demo", "--port", str(port))
    prelude = with_engine_ports(port + 1)
    async with launched(tmp_path, None, *arguments, prelude=prelude) as router:
        await router.prints("Ctrl-C ends the router.")
        banner = router.out
        assert f"listens on http://127.0.0.1:{port}\n" in banner
        assert "engine: embedded llama.cpp" in banner
        assert "models: 3\n" in banner
        for name in DEMO_TEXTS:
            assert f"  {name}\n" in banner

        # curl's arguments, as a shell would take them.
        command = re.search(r"^curl -N .*?}'$", banner, re.DOTALL | re.MULTILINE)
        assert command is not None
        _curl, _n, url, _header, content_type, _data, data = shlex.split(
            command[0].replace("\\\n", "")
        )
        name, _, value = content_type.partition(": ")
        answer = await router.client.post(url, content=data, headers={name: value})
        assert answer.status_code == 200
        first = teller("".join(deltas(answer.text)))
        assert first == json.loads(data)["model"]

        # The other one as it stands, pasted into a shell.
        pasted = re.search(r"^\S+ -m pip install .*\nEND$", banner, re.DOTALL | re.MULTILINE)
        assert pasted is not None
        snippet = await asyncio.create_subprocess_exec(
            *("bash", "-c", pasted[0]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PIP_NO_INDEX": "1", "PIP_ROOT_USER_ACTION": "ignore"},
        )
        async with asyncio.timeout(DEADLINE_S):
            out, err = await snippet.communicate()
        assert (snippet.returncode, err) == (0, b"")
        second = teller(out.decode())
        assert second != first
        await router.says(f"{first}: stopping -> unloaded")
        await router.says(f"{second}: starting -> ready")
    assert f"{second}: ready -> stopping" in router.err or "draining" in router.err
