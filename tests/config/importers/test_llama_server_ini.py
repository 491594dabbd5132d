from pathlib import Path

import pytest

from llama_router.config.importers import Foreign, load_foreign, read_foreign
from llama_router.config.importers.llama_server_ini import canonical_name
from llama_router.config.importers.report import Fate
from llama_router.config.problems import ConfigError
from llama_router.config.schema import DEFAULT_COMMAND

FROM_HUB = [
    *[part for part in DEFAULT_COMMAND if part not in {"--model", "$path", "--mmproj", "$mmproj"}],
    "--hf-repo",
]


def of(tmp_path: Path, text: str) -> Foreign:
    path = tmp_path / "models.ini"
    path.write_text(text)
    foreign = read_foreign(path)
    assert foreign is not None
    return foreign


def said(foreign: Foreign, fate: Fate) -> dict[str, str]:
    return {note.key: note.why for note in foreign.report.of(fate)}


def test_sections_are_models_and_keys_options_by_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = of(
        tmp_path,
        "; a comment\nversion = 1\n[*]\nc = 4096 ; for all\nstop-timeout = 4\nno-jinja = on\n\n"
        "[small] # the first\nmodel = models/small.gguf\nmmproj=/m/p.gguf\n"
        "LLAMA_ARG_CTX_SIZE = 8192\nngl = all\nfa = on\ntemp=0.7\nload-on-startup = true\n"
        "alias = tiny, wee\ntags = fast,local\nstop-timeout = 9\n",
    )
    content = foreign.native.content
    assert content["defaults"] == {
        "parameters": {"ctx-size": 4096, "jinja": False},
        "stop_grace_s": 4,
    }
    (small,) = content["models"]
    assert small == {
        "name": "small",
        "path": str(tmp_path / "models" / "small.gguf"),
        "aliases": ["tiny", "wee"],
        "mmproj": "/m/p.gguf",
        "parameters": {"ctx-size": 8192, "gpu-layers": "all", "flash-attn": "on", "temp": 0.7},
        "metadata": {"tags": ["fast", "local"]},
        "stop_grace_s": 9,
    }
    assert foreign.config.router.preload == ("small",)
    assert foreign.config.router.stop_grace_s == 10
    assert not foreign.report.of(Fate.UNKNOWN)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("temp = 0.70 ; warm", 0.7),
        ("LLAMA_ARG_TOP_P = 1", 1),
        ("min-p = .05", 0.05),
        ("rope-freq-base = 1e6", 1e6),
        ("presence-penalty = -1.5", -1.5),
        ("temp = 1e999", "1e999"),
        ("temp = hot", "hot"),
        ("reverse-prompt = 0.50", "0.50"),
        ("tensor-split = 0.50", "0.50"),
        ("fa = 1", "on"),
        ("flash-attn = True", "on"),
        ("fit = disabled", "off"),
        ("reasoning = auto", "auto"),
        ("fa = 2", 2),
    ],
)
def test_values_are_read_as_the_option_takes_them(
    tmp_path: Path, line: str, value: float | str
) -> None:
    content = of(tmp_path, f"[m]\nmodel = m.gguf\n{line}\n").native.content
    (found,) = content["models"][0]["parameters"].values()
    assert (found, type(found)) == (value, type(value))


def test_models_of_the_hub_are_named_as_there(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "[chat]\nhf-repo = org/name-GGUF:ud-q4_k_xl\nload-on-startup = 1\n"
        "[file]\nhf = org/other\nhff = sub/other-1b.Q8_0.gguf\n"
        "[org/third:q8_0]\nc = 1024\n",
    )
    chat, file, third = foreign.native.content["models"]
    assert chat == {"name": "org/name-GGUF:Q4_K_XL", "state": "auto", "aliases": ["chat"]}
    assert file == {"name": "org/other:Q8_0", "state": "auto", "aliases": ["file"]}
    assert third["name"] == "org/third:Q8_0"
    assert foreign.config.router.preload == ("org/name-GGUF:Q4_K_XL",)
    assert "llama-router pull org/other" in said(foreign, Fate.TRANSLATED)["file.hff"]
    assert canonical_name("no-slash:q4") == "no-slash:q4"


def test_a_model_of_the_hub_may_be_several_models(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "[quick]\nhf = org/name:Q4_K_M\nc = 512\nload-on-startup = on\n"
        "[slow]\nhf-repo = org/name:q4_k_m\nhff = x$y.gguf\nlora = /l.gguf\nalias = other\n"
        "[org/name:Q4_K_M]\nc = 1024\n[*]\nno-mmproj = on\n",
    )
    quick, slow, itself = foreign.native.content["models"]
    assert quick == {
        "name": "quick",
        "state": "manual",
        "parameters": {"ctx-size": 512},
        "spawn": {"command": [*FROM_HUB, "org/name:Q4_K_M", "--no-mmproj-auto"]},
    }
    command = [*FROM_HUB, "org/name:q4_k_m", "--hf-file", "x$$y.gguf"]
    assert slow == {
        "name": "slow",
        "state": "manual",
        "aliases": ["other"],
        "spawn": {"command": [*command, "--no-mmproj-auto", "--lora", "/l.gguf"]},
    }
    assert itself == {
        "name": "org/name:Q4_K_M",
        "state": "auto",
        "parameters": {"ctx-size": 1024},
    }
    assert foreign.config.router.preload == ("quick",)
    assert "another section" in said(foreign, Fate.TRANSLATED)["quick.hf"]


def test_what_stands_before_any_section_is_a_model_if_it_says_something(tmp_path: Path) -> None:
    head = "version = 1\n%s[*]\nload-on-startup = on\n[m]\nmodel = m.gguf\n"
    assert of(tmp_path, head % "").config.router.preload == ("m",)
    assert of(tmp_path, head % "c = 1\n").config.router.preload == ("default", "m")


def test_files_of_options_are_as_seen_from_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = of(tmp_path, "[m]\nmodel = m.gguf\nmd = ./d.gguf\nlora = a.gguf, /b.gguf\n")
    command = foreign.native.content["models"][0]["spawn"]["command"]
    drafts = ["--spec-draft-model", str(tmp_path / "d.gguf")]
    assert command[-4:] == [*drafts, "--lora", f"{tmp_path / 'a.gguf'},/b.gguf"]


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ("mmap = off", "none"),
        ("no-mmap = on", "none"),
        ("LLAMA_ARG_NO_MMAP = 1", "none"),
        ("mmap = on", "mmap"),
        ("mlock = on", "mmap+mlock"),
        ("mlock = on\nno-mmap = on", "mlock"),
        ("mlock = off", None),
        ("mlock = off\nmmap = off", "none"),
        ("direct-io = on", "dio"),
        ("LLAMA_ARG_DIO = 1\nmmap = on\nmlock = on", "dio"),
        ("ndio = on", None),
        ("direct-io = off\nno-mmap = on", "none"),
        ("LLAMA_ARG_NO_DIO = 1\nmlock = on", "mmap+mlock"),
    ],
)
def test_flags_that_llama_server_dropped_become_its_load_mode(
    tmp_path: Path, flags: str, mode: str | None
) -> None:
    foreign = of(tmp_path, f"[m]\nmodel = m.gguf\n{flags}\n")
    (entry,) = foreign.native.content["models"]
    assert entry.get("parameters", {}).get("load-mode") == mode
    assert all("--load-mode" in why for why in said(foreign, Fate.TRANSLATED).values())


def test_what_is_the_routers_or_nobodys_is_named(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "[m]\nmodel = m.gguf\nport = 1\nctx = 3\nmodels-max = 2\ndedup-cache-models = on\n",
    )
    assert said(foreign, Fate.UNKNOWN) == {"m.ctx": "llama-server has no such option"}
    assert set(said(foreign, Fate.NOT_CARRIED)) == {
        *("m.port", "m.models-max", "m.dedup-cache-models")
    }
    assert "parameters" not in foreign.native.content["models"][0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[m]\nmodel m.gguf\n", "models.ini:2:1: is neither [section] nor key = value"),
        ("[m]\n  jinja = maybe\n", "models.ini:2:3: m.jinja: must be on or off"),
        ("[m]\nmmap = maybe\n", "models.ini:2:1: m.mmap: must be on or off"),
        ("[m]\nload-on-startup = maybe\n", "models.ini:2:1: m.load-on-startup: must be on or off"),
        ("[m]\nstop-timeout = 0\n", "models.ini:2:1: m.stop-timeout: must be a number of seconds"),
        ("[a]\nalias = x\n[b]\nalias = x\n", "models.ini:4:1: b.alias: x is already the name of"),
    ],
)
def test_faults_are_told_at_their_place(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(tmp_path, text)
    assert fault in str(caught.value)


def test_options_that_only_commands_may_have_are_put_into_one(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "[*]\nchat-template-file = /t.jinja\n[m]\nmodel = m.gguf\nlora = /l$1.gguf\n"
        "no-mmproj = on\n[n]\nmodel = n.gguf\nc = 1\n",
    )
    content = foreign.native.content
    shared = ["--chat-template-file", "/t.jinja"]
    assert content["default_spawn"]["command"] == [*DEFAULT_COMMAND, *shared]
    without = [part for part in DEFAULT_COMMAND if "mmproj" not in part]
    own = ["--lora", "/l$$1.gguf", "--no-mmproj-auto"]
    assert content["models"][0]["spawn"]["command"] == [*without, *shared, *own]
    assert "spawn" not in content["models"][1]


def test_names_that_llama_server_changed_are_its_present_ones(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "[m]\nmodel = m.gguf\ndraft-max = 8\nnkvo = on\nLLAMA_ARG_NO_REPACK = 1\n"
        "sleep-idle-seconds = 300\n",
    )
    assert foreign.native.content["models"][0]["parameters"] == {
        "spec-draft-n-max": 8,
        "kv-offload": False,
        "repack": False,
    }
    assert foreign.native.content["models"][0]["ttl_s"] == 300


def test_a_preset_runs_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "models.ini"
    path.write_text("[m]\nmodel = m.gguf\nctx-size = 1\njinja = true\nthreads = 0\nport = 1\n")
    loaded = load_foreign(path)
    assert loaded is not None
    assert loaded.config.models[0].parameters == {"ctx-size": 1, "jinja": True, "threads": 0}
    assert "1 setting has no effect here (m.port)" in str(loaded.warnings[0])
