import pytest

from llama_router.proxy.client import Client
from tests.support.data_plane import data_plane, get


@pytest.mark.asyncio
async def test_a_connection_is_what_an_exchange_takes_for_its_client() -> None:
    async with data_plane() as plane:
        asking = await plane.client()
        connection = await plane.connection()
        client: Client = connection
        seen = [(client.is_blocked, client.wants_close)]
        connection.pause_writing()
        seen.append((client.is_blocked, client.wants_close))
        connection.resume_writing()
        plane.services.closing = True
        seen.append((client.is_blocked, client.wants_close))
        assert seen == [(False, False), (True, False), (False, True)]
        asking.send(get())
        assert (await asking.answer()).fields[b"connection"] == b"close"
