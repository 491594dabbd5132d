import sys
from pathlib import Path

import msgspec
import pytest

from llama_router.config.schema import DEFAULT_COMMAND
from llama_router.engines.kinds import (
    CommandError,
    CommandTemplate,
    ModelFacts,
    build_launch,
    check_command,
    embedded,
    kind_of,
)
from llama_router.engines.launch import LaunchSpec, OwnerCheck, Readiness

MODEL = ModelFacts(id="alpha", path=Path("/m/alpha.gguf"))
FOUND = Path("/opt/bin/llama-server")
PUSH = "LLAMA_SERVER_ROUTER_PORT"


def launch(
    *command: str, found: Path | None = FOUND, env: dict[str, str] | None = None
) -> LaunchSpec:
    return build_launch(
        CommandTemplate(command=command),
        MODEL,
        generation=7,
        host="127.0.0.1",
        port=50001,
        base_env=env or {},
        found_llama_server=found,
    )


def test_the_default_command_is_valid() -> None:
    check_command(DEFAULT_COMMAND)


def test_llama_server_means_the_one_found() -> None:
    spec = launch(*DEFAULT_COMMAND)
    assert spec.argv == (
        *("/opt/bin/llama-server", "--jinja", "--model", "/m/alpha.gguf", "--alias", "alpha"),
        *("--host", "127.0.0.1", "--port", "50001"),
    )
    assert (spec.model, spec.generation, spec.host, spec.port) == ("alpha", 7, "127.0.0.1", 50001)
    assert spec.readiness is Readiness.PUSHED
    assert spec.env == {PUSH: "0"}


HUB = {"HF_TOKEN": "hf_mine", "HUGGING_FACE_HUB_TOKEN": "hf_old"}


@pytest.mark.parametrize(
    ("command", "has_token"),
    [
        (("llama-server", "--model", "$path", "--port", "$port"), False),
        (("/opt/llama-server", "--port", "$port", "--chat-template", "-hfx"), True),
        (("/opt/llama-server", "--port", "$port", "-hf", "org/gated:Q4"), True),
        (("llama-server", "--port", "$port", "--hf-repo", "org/gated"), True),
        (("llama-server", "--port", "$port", "--spec-draft-hf", "org/gated"), True),
        (("llama-server", "--port", "$port", "-mu", "https://hf.example/gated.gguf"), True),
        (("llama-server", "--port", "$port", "--mmproj-url=https://hf.example/p.gguf"), True),
        (("llama-server", "--port", "$port", "-m", "$path", "--mmproj", "/p.gguf"), False),
        (("llama-server", "--port", "$port", "--alias", "org/hf", "--path", "/hf"), False),
        ((sys.executable, "-P", "-m", "llama_router.engines.embedded", "--port", "$port"), False),
        (("vllm", "serve", "--port", "$port"), True),
        (("docker", "run", "-e", "HF_TOKEN", "--port", "$port"), True),
    ],
)
def test_a_persons_token_is_for_engines_that_may_download(
    command: tuple[str, ...],
    has_token: bool,  # noqa: FBT001 - a table
) -> None:
    spec = launch(*command, env=HUB)
    assert (HUB.items() <= spec.env.items()) is has_token
    assert HUB.keys().isdisjoint(spec.env) is not has_token


def test_what_the_config_says_of_a_token_holds_for_every_engine() -> None:
    template = CommandTemplate(command=DEFAULT_COMMAND, env={"HF_TOKEN": "hf_theirs"})
    spec = build_launch(
        template,
        MODEL,
        generation=1,
        host="127.0.0.1",
        port=50001,
        base_env=HUB,
        found_llama_server=FOUND,
    )
    assert spec.env == {PUSH: "0", "HF_TOKEN": "hf_theirs"}


def test_none_found_means_the_embedded_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_available", lambda: True)
    spec = launch(*DEFAULT_COMMAND, found=None)
    assert spec.argv[:4] == (sys.executable, "-P", "-m", "llama_router.engines.embedded")
    assert spec.argv[4:] == launch(*DEFAULT_COMMAND).argv[1:]
    assert spec.readiness is Readiness.PUSHED
    assert PUSH in spec.env


def test_no_engine_at_all_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_available", lambda: False)
    with pytest.raises(CommandError, match=r"install llama\.cpp"):
        launch(*DEFAULT_COMMAND, found=None)


def test_a_path_to_a_llama_server_is_that_one() -> None:
    spec = launch("/elsewhere/llama-server", "--port", "$port", found=None)
    assert spec.argv[0] == "/elsewhere/llama-server"
    assert spec.readiness is Readiness.PUSHED


def test_any_other_command_is_probed_as_it_stands() -> None:
    spec = launch("vllm", "serve", "llama-server", "--port", "$port", found=None)
    assert spec.argv == ("vllm", "serve", "llama-server", "--port", "50001")
    assert spec.readiness is Readiness.PROBED
    assert PUSH not in spec.env


def test_engines_inherit_what_does_not_mislead_them() -> None:
    env = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "LLAMA_ARG_THREADS": "3",
        "LLAMA_ARG_PORT": "9",
        "LLAMA_ARG_API_PREFIX": "/secret",
        "LLAMA_API_KEY": "k",
        "LLAMA_ROUTER_ADMIN_TOKEN": "t",
        PUSH: "1234",
    }
    kept = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "LLAMA_ARG_THREADS": "3"}
    assert launch(*DEFAULT_COMMAND, env=env).env == {**kept, PUSH: "0"}
    other = launch("run", "$port", env=env).env
    assert other == {**kept, "LLAMA_ARG_API_PREFIX": "/secret"}


def test_the_templates_settings_reach_the_launch() -> None:
    template = CommandTemplate(
        command=("run", "$port"), health_path="/ready", owner_check=OwnerCheck.PORT
    )
    spec = build_launch(
        template, MODEL, generation=1, host="h", port=1, base_env={}, found_llama_server=None
    )
    assert (spec.health_path, spec.owner_check) == ("/ready", OwnerCheck.PORT)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("llama-server",), "llama-server"),
        (embedded.embedded_command(["--model", "x"]), "embedded"),
        (("python", "-m", "llama_router.engines.embedded"), "command"),
        (("docker", "run"), "command"),
    ],
)
def test_every_command_has_one_kind(argv: tuple[str, ...], name: str) -> None:
    assert kind_of(argv).name == name


PLAIN = CommandTemplate(command=DEFAULT_COMMAND, is_default=True)


def launched(template: CommandTemplate, model: ModelFacts = MODEL) -> LaunchSpec:
    return build_launch(
        template,
        model,
        generation=1,
        host="127.0.0.1",
        port=50001,
        base_env={"LLAMA_ROUTER_TOKEN": "secret", "LLAMA_ARG_MODEL": "x", "HOME": "/h"},
        found_llama_server=FOUND,
    )


@pytest.mark.parametrize(
    ("is_embedding", "is_reranker", "added"),
    [(False, False, ()), (True, False, ("--embeddings",)), (True, True, ("--reranking",))],
)
def test_the_default_command_is_told_what_a_model_is_for(
    *, is_embedding: bool, is_reranker: bool, added: tuple[str, ...]
) -> None:
    model = msgspec.structs.replace(MODEL, is_embedding=is_embedding, is_reranker=is_reranker)
    plain = launched(PLAIN)
    assert launched(PLAIN, model).argv == (*plain.argv, *added)
    own = CommandTemplate(command=DEFAULT_COMMAND)
    assert launched(own, model).argv == plain.argv


def test_variables_of_the_config_go_over_all_and_never_the_routers_own() -> None:
    env = {"LLAMA_ARG_MODEL": "mine", "LLAMA_ARG_API_PREFIX": "/x", "A": "$b"}
    spec = launched(CommandTemplate(command=DEFAULT_COMMAND, env=env))
    assert spec.env == {"HOME": "/h", PUSH: "0", **env}
    for name in ("LLAMA_ROUTER_TOKEN", "llama_router_engine", PUSH, "", "A=B"):
        with pytest.raises(CommandError, match="env"):
            launched(CommandTemplate(command=DEFAULT_COMMAND, env={name: "x"}))


def test_an_address_of_its_own_needs_no_port_in_the_command() -> None:
    template = CommandTemplate(command=("run",), address="http://box:9000/v1")
    spec = launched(template)
    assert not template.needs_port
    assert (spec.host, spec.port, spec.path_prefix) == ("box", 9000, "/v1")
    assert spec.health_path == "/v1/health"
    assert spec.is_address_given
    for address in ("", "http://$host:$port"):
        with pytest.raises(CommandError, match=r"does not say \$port"):
            launched(CommandTemplate(command=("run",), address=address))
    with pytest.raises(CommandError, match="address"):
        launched(CommandTemplate(command=("run",), address="box:9000"))


def test_no_health_endpoint_is_no_path() -> None:
    spec = launched(CommandTemplate(command=DEFAULT_COMMAND, health_path="none"))
    assert spec.health_path == ""


def test_parameters_are_put_after_what_is_added_and_bad_ones_said() -> None:
    template = CommandTemplate(command=("run", "$port"), parameters={"a": 1, "b": True})
    assert launched(template).argv == ("run", "50001", "--a", "1", "--b")
    with pytest.raises(CommandError, match="parameters: a"):
        launched(CommandTemplate(command=("run", "$port"), parameters={"a": "--b"}))


def test_a_stop_command_is_filled_but_for_the_pid() -> None:
    command = ("stop", "$pid", "--url=http://$host:$port/$pid", "$model", "$$x")
    spec = launched(CommandTemplate(command=DEFAULT_COMMAND, stop_command=command))
    assert spec.stop_argv == (
        ("stop",),
        ("", ""),
        ("--url=http://127.0.0.1:50001/", ""),
        ("alpha",),
        ("$x",),
    )
    for bad in (("stop", "$parameters"), ("stop", "$nothing"), ("", "x"), ("a\0",)):
        with pytest.raises(CommandError):
            launched(CommandTemplate(command=DEFAULT_COMMAND, stop_command=bad))


@pytest.mark.parametrize("found", [FOUND, None], ids=["llama-server", "embedded"])
def test_an_engine_with_a_stop_command_ends_for_a_signal_alone(
    found: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "embedded_available", lambda: True)
    template = CommandTemplate(command=DEFAULT_COMMAND, stop_command=("kill", "$pid"))
    spec = build_launch(
        template,
        MODEL,
        generation=7,
        host="127.0.0.1",
        port=50001,
        base_env={PUSH: "1", "LLAMA_ARG_ALIAS": "other", "HOME": "/h"},
        found_llama_server=found,
    )
    assert spec.readiness is Readiness.PROBED
    assert spec.env == {"HOME": "/h"}
