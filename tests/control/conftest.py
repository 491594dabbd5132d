from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from llama_router.control.app import create_app, with_secret
from llama_router.control.secret import SECRET_HEADER
from tests.support.control_facade import SECRET, Router


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def client(router: Router) -> Iterator[TestClient]:
    app = with_secret(create_app(router, version="1"), SECRET)
    headers = {SECRET_HEADER.decode(): SECRET}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client
