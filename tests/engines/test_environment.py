from llama_router.engines.environment import engine_environment, without_hub_tokens


def test_secrets_and_misleading_settings_do_not_reach_engines() -> None:
    base = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "LLAMA_ARG_CTX_SIZE": "512",
        "LLAMA_ROUTER_API_KEY": "secret",
        "llama_router_admin_token": "secret",
        "LLAMA_API_KEY": "secret",
        "LLAMA_ARG_HOST": "192.0.2.1",
        "LLAMA_ARG_PORT": "1",
        "LLAMA_ARG_MODEL": "other.gguf",
        "LLAMA_SERVER_ROUTER_PORT": "8080",
    }
    assert engine_environment(base, {"EXTRA": "1", "PATH": "/opt"}) == {
        "PATH": "/opt",
        "CUDA_VISIBLE_DEVICES": "0",
        "LLAMA_ARG_CTX_SIZE": "512",
        "EXTRA": "1",
    }


def test_the_tokens_of_a_person_can_be_left_out() -> None:
    base = {"HF_TOKEN": "a", "hf_token": "b", "HUGGING_FACE_HUB_TOKEN": "c", "HF_HOME": "/hub"}
    assert without_hub_tokens(base) == {"HF_HOME": "/hub"}
