import hashlib

from llama_router.config.schema import Config
from llama_router.runtime.own_secrets import engine_base_environment, own_secrets

CONFIG = Config.model_validate(
    {
        "router": {
            "admin_token": "the-admin-token",
            "api_keys": ["k", {"key": f"sha256:{'0' * 64}", "name": "hashed"}],
        },
        "peers": {"other": {"url": "http://a", "api_key": "the-peers-key"}},
        "hub": {"token": "the-hub-token"},
    }
)


def test_secrets_are_those_that_are_written_out() -> None:
    assert own_secrets(CONFIG) == {"the-admin-token", "k", "the-peers-key", "the-hub-token"}
    assert own_secrets(Config()) == frozenset()


def test_engines_do_not_inherit_them_and_do_inherit_all_else() -> None:
    env = {
        "TOKEN": "the-admin-token",
        "AUTH": "Bearer the-peers-key",
        "KEY": "k",
        "PATH": "/usr/bin:/bin/k",
        "HASH": f"sha256:{'0' * 64}",
        "EMPTY": "",
    }
    kept = engine_base_environment(env, CONFIG)
    assert set(kept) == {"PATH", "HASH", "EMPTY"}
    assert engine_base_environment(env, Config()) == env


def test_a_key_of_which_only_the_digest_is_known_is_not_inherited_either() -> None:
    env = {"OPENAI_API_KEY": "lr-mine", "BYTES": "\udcff", "PATH": "/usr/bin"}
    digests = {hashlib.sha256(b"lr-mine").digest()}
    assert set(engine_base_environment(env, Config(), digests)) == {"BYTES", "PATH"}
