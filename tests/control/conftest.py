from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from llama_router.control.app import create_app, with_secret
from llama_router.control.secret import SECRET_HEADER
from tests.support.control_facade import SECRET, Router
from tests.support.control_fakes import Configuration, KeyHolder, Profiles, Settings


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def configuration() -> Configuration:
    return Configuration()


@pytest.fixture
def profiles() -> Profiles:
    return Profiles()


@pytest.fixture
def keys() -> KeyHolder:
    return KeyHolder()


@pytest.fixture
def app(
    router: Router,
    settings: Settings,
    configuration: Configuration,
    profiles: Profiles,
    keys: KeyHolder,
) -> FastAPI:
    return create_app(
        router,
        version="1",
        configuration=configuration,
        settings=settings,
        profiles=profiles,
        keys=keys,
    )


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    headers = {SECRET_HEADER.decode(): SECRET}
    guarded = with_secret(app, SECRET)
    with TestClient(guarded, headers=headers, raise_server_exceptions=False) as client:
        yield client
