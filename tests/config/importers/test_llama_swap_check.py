from pathlib import Path

from llama_router.config.importers.report import Fate
from tests.config.importers.swaps import faults, model, of


def test_numbers_may_come_from_macros_and_variables(tmp_path: Path) -> None:
    foreign = of(
        tmp_path,
        "macros: {ttl: 45, loading: true}\nglobalTTL: '${env.TTL}'\n"
        "sendLoadingState: ${loading}\nhealthCheckTimeout: 3\n"
        "models:\n  m:\n    macros: {wait: 12}\n    cmd: x ${PORT}\n    ttl: ${ttl}\n"
        "    timeouts: {connect: '${wait}', responseHeader: 0}\n    unlisted: yes\n",
        TTL="120",
    )
    entry = model(foreign, "m")
    assert foreign.config.router.ttl_s == 120
    assert foreign.config.router.notify_model_swap is True
    assert foreign.config.router.ready_timeout_s == 15
    assert (entry["ttl_s"], entry["connection_timeout_s"], entry["unlisted"]) == (45, 12, True)
    assert entry["first_byte_timeout_s"] == 0


def test_keys_that_llama_swap_does_not_have_are_named(tmp_path: Path) -> None:
    foreign = of(tmp_path, "model_dir: x\nmodels:\n  m: {cmd: 'x ${PORT}', cmdstop: y, a.b: 1}\n")
    unknown = {note.key: note.why for note in foreign.report.of(Fate.UNKNOWN)}
    assert unknown == {
        "model_dir": "llama-swap has no such key; did you mean models?",
        "models.m.cmdstop": "llama-swap has no such key; did you mean cmdStop?",
        "models.m.a.b": "llama-swap has no such key",
    }


def test_faults_never_show_what_a_variable_holds(tmp_path: Path) -> None:
    text = "models: {}\napiKeys: ['${env.KEY}']\nglobalTTL: ${env.KEY}\n"
    said = faults(tmp_path, text, KEY="hunter2 with spaces")
    assert "hunter2" not in said
    assert "globalTTL" in said
