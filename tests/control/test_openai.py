import msgspec
from starlette.testclient import TestClient

from llama_router.control.facade import ListedModel
from llama_router.control.objects import listed_object
from tests.support.control_facade import ALPHA, Router


def test_the_list_is_of_the_owner_of_the_key_that_the_data_plane_names(
    client: TestClient, router: Router
) -> None:
    for path in ("/v1/models", "/models", f"/v1/models/{ALPHA.id}"):
        assert client.get(path, headers={"x-router-key": "ann"}).status_code == 200
    client.get("/v1/models")
    assert router.asked_keys == ["ann", "ann", "ann", ""]


def test_selectors_and_models_of_peers_are_listed_like_models() -> None:
    selector = ListedModel(
        id="any", kind="selector", title="Any", description="d", metadata={"a": 1}
    )
    assert listed_object(selector) == {
        "id": "any",
        "object": "model",
        "created": 0,
        "owned_by": "llama-router",
        "kind": "selector",
        "name": "Any",
        "description": "d",
        "meta": {"llamaswap": {"a": 1}},
    }


def test_what_the_config_says_of_a_model_is_beside_what_its_file_says() -> None:
    info = msgspec.structs.replace(ALPHA, title="Alpha")
    shown = listed_object(ListedModel(id=info.id, title="Alpha", metadata={"x": 2}, info=info))
    assert shown["name"] == "Alpha"
    assert shown["meta"] == {"size": 1000, "llamaswap": {"x": 2}}
    assert shown["status"] == {"value": "unloaded"}
