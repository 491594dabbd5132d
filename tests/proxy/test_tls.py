import asyncio
import ssl

import pytest

from llama_router.proxy.tls import Tls
from llama_router.proxy.upstream import Upstream
from tests.support.certificate import server_context, trusting_context
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.asyncio
DEADLINE_S = 20.0


def upstream(port: int, tls: Tls, host: str = "localhost") -> Upstream:
    return Upstream(host=host, port=port, connect_timeout_s=DEADLINE_S, tls=tls)


async def test_the_context_is_made_once_and_checks_who_answers() -> None:
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(trusting_context())
        return made[-1]

    tls = Tls(make)
    contexts = await asyncio.gather(tls.context(), tls.context())
    assert list(contexts) == made * 2
    assert (await Tls().context()).verify_mode is ssl.CERT_REQUIRED
    assert (await Tls().context()).check_hostname


async def test_a_context_that_could_not_be_made_is_tried_again() -> None:
    outcomes: list[Exception | ssl.SSLContext] = [OSError("no store"), trusting_context()]

    def make() -> ssl.SSLContext:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    tls = Tls(make)
    with pytest.raises(OSError, match="no store"):
        await tls.context()
    assert isinstance(await tls.context(), ssl.SSLContext)


async def test_it_is_told_which_name_is_meant_and_which_protocol() -> None:
    names: list[str | None] = []
    context = server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with asyncio.timeout(DEADLINE_S), ScriptedEngine(tls=context) as engine:
        connection = await upstream(engine.port, Tls(trusting_context)).connect()
        side = await engine.accept()
        assert side.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        connection.transport.abort()
    assert names == ["localhost"]


@pytest.mark.parametrize(
    ("trusts", "host", "match"),
    [(False, "localhost", "self.signed"), (True, "127.0.0.1", "IP address mismatch")],
)
async def test_who_cannot_prove_who_it_is_gets_no_byte(
    host: str, match: str, *, trusts: bool
) -> None:
    tls = Tls(trusting_context) if trusts else Tls()
    async with asyncio.timeout(DEADLINE_S), ScriptedEngine(tls=server_context()) as engine:
        with pytest.raises(OSError, match=match):
            await upstream(engine.port, tls, host).connect()
        assert engine.requests == []
