from collections.abc import Iterator

from ruamel.yaml import YAML

from llama_router.config.importers.llama_swap_keys import KEYS, Kind
from llama_router.config.importers.report import Fate
from tests.config.importers.documented import DOCUMENTED
from tests.config.importers.swaps import FILES, read


def places(value: object, pattern: str = "") -> Iterator[str]:
    """Name the places of all keys in a file, by the patterns of the documented ones."""
    yield pattern
    if isinstance(value, dict) and KEYS[pattern].kind in {Kind.SECTION, Kind.NAMED}:
        for name, item in value.items():
            key = "*" if KEYS[pattern].kind is Kind.NAMED else name
            yield from places(item, f"{pattern}.{key}".lstrip("."))


def test_every_documented_key_is_known_and_used_by_the_fixtures() -> None:
    used = set[str]()
    for path in FILES.glob("llama-swap*.yaml"):
        used |= set(places(YAML(typ="safe", pure=True).load(path)))
    assert set(KEYS) >= DOCUMENTED
    assert used >= DOCUMENTED
    extra = {key for key, what in KEYS.items() if what.native or what.why} - DOCUMENTED
    sections = {f"{key.rpartition('.')[0]}" for key in DOCUMENTED}
    assert {
        key for key in extra if not any(s == key or s.startswith(f"{key}.") for s in sections)
    } == set()


def test_every_key_of_the_fixture_has_a_fate_and_none_is_lost_without_a_reason() -> None:
    foreign = read(FILES / "llama-swap.yaml")
    told = {note.pattern for note in foreign.report.notes}
    used = set(places(YAML(typ="safe", pure=True).load(FILES / "llama-swap.yaml")))
    assert told >= {key for key in used if KEYS[key].kind is not Kind.SECTION}
    assert all(note.why for note in foreign.report.lost)
    assert not foreign.report.of(Fate.UNKNOWN)
    assert {note.pattern for note in foreign.report.lost} <= {
        *("logTimeFormat", "logToStdout", "logRequests", "metricsMaxInMemory", "captureBuffer"),
        *("store.path", "ui.activity.session_id", "performance.disabled", "performance.every"),
        *(f"models.*.timeouts.{k}" for k in ("keepalive", "tlsHandshake", "expectContinue")),
        *(f"peers.*.timeouts.{k}" for k in ("keepalive", "tlsHandshake", "expectContinue")),
        *("models.*.timeouts.idleConn", "peers.*.timeouts.idleConn"),
        *("models.*.compat.ignoreWebsockets", "models.*.healthCheckTimeout"),
        *(f"tailcat.{k}" for k in ("allow", "models", "admin", "debug")),
        "peers.*.tailcatKey",
        "",  # what is not there, not reached or not in use: a model, a peer, the matrix
    }
