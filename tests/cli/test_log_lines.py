from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from llama_router.cli.main import app
from tests.support.canned_router import CannedRouter, canned_router


@pytest.fixture
def router() -> Iterator[CannedRouter]:
    with canned_router() as server:
        yield server


def test_the_log_of_a_model_is_printed_line_by_line(router: CannedRouter) -> None:
    router.answers["GET", "/logs/a%20b"] = 200, "one\ntwo\n"
    result = CliRunner().invoke(app, ["logs", "a b", "--url", router.url])
    assert (result.exit_code, result.output) == (0, "one\ntwo\n")


def test_following_asks_for_what_comes(router: CannedRouter) -> None:
    router.answers["GET", "/logs"] = 200, "one\n"
    result = CliRunner().invoke(app, ["logs", "-f", "--url", router.url])
    assert (result.exit_code, result.output) == (0, "one\n")
    assert router.asked[0].path == "/logs?follow=true"


def test_an_unknown_model_is_told_in_the_routers_words(router: CannedRouter) -> None:
    router.answers["GET", "/logs/x"] = 404, {"error": {"message": "there is no x"}}
    result = CliRunner().invoke(app, ["logs", "x", "--url", router.url])
    assert (result.exit_code, result.output) == (2, "llama-router: there is no x\n")
