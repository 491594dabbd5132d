"""What the official Python client makes of the router."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from llama_router.catalog.tiny import write_model
from tests.e2e.conftest import StartRouter
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import DEADLINE_S, RouterProcess, launched, write_config
from tests.support.tools import llama_server_path, need_embedded

pytestmark = pytest.mark.asyncio

QUESTION = [{"role": "user", "content": "Hi"}]


def client_of(router: RouterProcess, api_key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key=api_key, timeout=DEADLINE_S)


@pytest_asyncio.fixture
async def router(start_router: StartRouter) -> RouterProcess:
    return await start_router(models=("alpha", "beta", "org/gamma:Q4"))


@pytest_asyncio.fixture
async def client(router: RouterProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(router) as client:
        yield client


async def streamed(client: openai.AsyncOpenAI, model: str, **rest: object) -> str:
    stream = await client.chat.completions.create(
        model=model,
        messages=QUESTION,  # type: ignore[arg-type] # plain dictionaries will do
        stream=True,
        extra_body=rest,
    )
    assert isinstance(stream, openai.AsyncStream)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_chat_in_one_piece(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="org/gamma:Q4",
        messages=QUESTION,  # type: ignore[arg-type] # plain dictionaries will do
    )
    assert answer.choices[0].message.content == " org/gamma:Q4 1 2 3 4"
    assert answer.model == "org/gamma:Q4"


async def test_chat_streamed(client: openai.AsyncOpenAI) -> None:
    assert await streamed(client, "alpha") == " alpha 1 2 3 4"


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    first = await client.embeddings.create(model="alpha", input=["a", "b"])
    second = await client.embeddings.create(model="beta", input="a")
    assert len(first.data) == 2
    assert first.data[0].embedding != second.data[0].embedding


async def test_models_are_listed_and_retrieved(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["alpha", "beta", "org/gamma:Q4"]
    assert {model.owned_by for model in models} == {"llama-router"}
    assert (await client.models.retrieve("org/gamma:Q4")).id == "org/gamma:Q4"
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve("nobody")
    assert raised.value.code == "model_not_found"


async def test_an_unknown_model_is_a_not_found_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await streamed(client, "nobody")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert raised.value.type == "invalid_request_error"


async def test_what_makes_no_sense_is_a_bad_request_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.post("/chat/completions", body={"model": 5}, cast_to=object)
    assert raised.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.post("/chat/completions", body={"model": "alpha"}, cast_to=object)


async def test_a_missing_or_wrong_key_is_an_authentication_error(start_router: StartRouter) -> None:
    router = await start_router(router={"api_keys": ["the-right-key"]})
    async with client_of(router, "the-wrong-key") as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await streamed(client, "alpha")
        assert raised.value.code == "invalid_api_key"
    async with client_of(router, "the-right-key") as client:
        assert await streamed(client, "alpha") == " alpha 1 2 3 4"


async def test_a_failed_load_is_an_internal_server_error_that_is_not_retried_in_vain(
    start_router: StartRouter,
) -> None:
    router = await start_router("--exit-in-load", "3")
    async with client_of(router) as client:
        assert client.max_retries == 2
        with pytest.raises(openai.InternalServerError) as raised:
            await streamed(client, "alpha")
    # Another try would have met the back-off, and that would be the code.
    assert (raised.value.status_code, raised.value.code) == (503, "model_load_failed")


async def test_a_crash_in_a_stream_is_an_api_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIError) as raised:
        await streamed(client, "alpha", fake_fault="crash-event")
    assert raised.value.code == "engine_crashed"


async def test_fifty_streams_over_three_models_that_exclude_each_other_take_three_loads(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    models = ("alpha", "beta", "gamma")
    router = await start_router("--gate-load", models=models)
    async with client_of(router) as client:
        asked = [models[number % 3] for number in range(50)]
        answers = [
            asyncio.create_task(streamed(client, model), name=f"stream {model}") for model in asked
        ]
        await router.busy_with(50)
        for _ in models:
            await (await fakes.started()).ready()
        expected = [f" {model} 1 2 3 4" for model in asked]
        assert await asyncio.gather(*answers) == expected
    assert sorted(engine.alias for engine in fakes.engines) == ["alpha", "beta", "gamma"]


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("embedded", marks=pytest.mark.embedded),
        pytest.param("llama-server", marks=pytest.mark.llama_server),
    ],
)
async def test_real_engines_answer_chats_streams_and_embeddings(
    tmp_path: Path, engine: str
) -> None:
    search_path = "/usr/bin:/bin"
    if engine == "embedded":
        need_embedded()
    else:
        search_path = f"{llama_server_path().parent}:{search_path}"
    folder = tmp_path / "gguf"
    folder.mkdir()
    (fox,) = write_model(folder / "fox.gguf", "The quick brown fox jumps over it.", name="fox")
    port = port_window()
    config = write_config(
        tmp_path,
        router={"base_port": port + 1},
        models={
            "fox": {"path": str(fox)},
            "vectors": {
                "path": str(fox),
                "spawn": {
                    "command": [
                        *("llama-server", "--embeddings", "--pooling", "mean", "--model", "$path"),
                        *("--host", "$host", "--port", "$port"),
                    ]
                },
            },
        },
    )
    async with launched(tmp_path, config, port=port, env={"PATH": search_path}) as router:
        assert engine in (await router.listening())
        async with client_of(router) as client:
            assert (await streamed(client, "fox")).startswith("The quick brown fox")
            answer = await client.embeddings.create(model="vectors", input="quick fox")
            assert len(answer.data[0].embedding) > 1
