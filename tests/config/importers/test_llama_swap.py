from pathlib import Path

import pytest

from tests.config.importers.swaps import FILES, faults, model, of, read


def test_secrets_stay_variables_until_the_config_is_used() -> None:
    foreign = read(FILES / "llama-swap.yaml")
    assert foreign.native.content["router"]["api_keys"] == ["${env.KEY}", "sk-second"]
    assert foreign.native.content["peers"]["elsewhere"]["api_key"] == "${env.PEER_KEY}"
    assert foreign.config.router.api_keys[0].key == "sk-$ecret"
    assert foreign.config.peers["elsewhere"].api_key == "pk"


def test_defaults_are_theirs() -> None:
    router = read(FILES / "llama-swap-early.yaml").config.router
    assert (router.ready_timeout_s, router.stop_grace_s, router.ttl_s) == (120, 10, 0)
    assert router.upstream_ignore_paths == (r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$",)
    # What they do not have stays ours.
    assert (router.host, router.port) == ("127.0.0.1", 8082)
    assert not router.memory_aware


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n  m:\n    cmd: x\n", "3:5: models.m.cmd: needs ${PORT} in it, or a proxy"),
        (
            "models:\n  m:\n    cmd: x\n    proxy: http://h:${PORT}\n",
            "4:5: models.m.proxy: uses ${PORT}, which is only there if cmd uses it",
        ),
        ("models:\n  m:\n    ttl: 3\n", "2:3: models.m: cmd is missing"),
        (
            "models:\n  m:\n    cmd: x ${PORT} ${oops}\n",
            "3:5: models.m.cmd: uses the unknown macro",
        ),
        (
            "models:\n  m:\n    cmd: x ${PORT}\n    ttl: soon\n",
            "4:5: models.m.ttl: must be a whole",
        ),
        ("models:\n  m:\n    cmd: x ${PORT}\n    ttl: -2\n", "4:5: models.m.ttl: must be -1"),
        (
            "models:\n  m:\n    cmd: x ${PORT}\n    env: [A]\n",
            "4:11: models.m.env[0]: must be NAME",
        ),
        ("models:\n  m: 3\n", "2:3: models.m: must hold keys and values"),
        ("models: {}\nstartPort: 0\n", "2:1: startPort: must be a port"),
        ("models: {}\nlogLevel: loud\n", "2:1: logLevel: must be one of debug"),
        ("models: {}\napiKeys: ['${env.NO}']\n", "2:11: apiKeys[0]: the environment variable NO"),
        ("models: {}\napiKeys: ['a b']\n", "2:11: apiKeys[0]: must be visible ASCII"),
        ("macros: {PORT: 1}\nmodels: {}\n", "1:10: macros.PORT: is a name that llama-swap uses"),
        (
            "models: {}\ngroups: {g: {members: []}}\nmatrix: {vars: {}, sets: {s: a}}\n",
            "3:1: matrix: cannot stand beside groups",
        ),
        (
            "models: {}\ngroups: {g: {members: []}}\nrouting: {router: {use: group}}\n",
            "2:1: groups: stands beside routing.router",
        ),
        ("models: {}\nrouting: {router: {use: matrix}}\n", "the matrix needs sets"),
        ("models: {}\nrouting: {scheduler: {use: lifo}}\n", "2:23: routing.scheduler.use: must be"),
        (
            "models: {}\nrouting:\n  scheduler:\n    settings: {fifo: {priority: {x: 1}}}\n",
            "4:34: routing.scheduler.settings.fifo.priority.x: there is no model x",
        ),
        ("models: {}\npeers: {p: {proxy: 'http://x'}}\n", "2:9: peers.p: models are missing"),
        ("models: {}\npeers: {p: {proxy: x, models: [m]}}\n", "2:13: peers.p.proxy: must begin"),
        ("models: {}\nselectors: {s: {targets: [m]}}\n", "2:13: selectors.s: strategy is missing"),
        (
            "models: {}\nhooks: {on_startup: {profile: p}}\n",
            "2:22: hooks.on_startup.profile: there",
        ),
        ("models:\n  m: [\n", "llama-swap.yaml:3:1: "),
    ],
)
def test_faults_are_told_at_their_place_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    assert said in faults(tmp_path, text)


def test_anchors_and_merged_keys_are_followed(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "x-base: &base\n  cmd: x --port ${PORT} -m ${MODEL_ID}\n  ttl: 5\n"
        "models:\n  a:\n    <<: *base\n  b:\n    <<: *base\n    ttl: 6\n",
    )
    assert model(foreign, "a")["spawn"]["command"][-1] == "a"
    assert [model(foreign, name)["ttl_s"] for name in "ab"] == [5, 6]
