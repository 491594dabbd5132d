import json

from llama_router.config.importers.report import Fate, Note, Report


def test_a_report_names_what_was_left_out_and_counts_the_rest() -> None:
    notes = [Note(f"models.m{i}.ttl", i, Fate.HONOURED, "models.*.ttl", "ttl_s") for i in range(9)]
    notes += [
        Note(f"models.m{i}.x", i, Fate.NOT_CARRIED, "models.*.x", why="too old")
        for i in range(1, 6)
    ]
    notes += [Note("odd", 3, Fate.UNKNOWN, "odd", why="no such key")]
    report = Report("f.yaml", "llama-swap config", tuple(notes))
    assert list(report.lines()) == [
        "f.yaml: llama-swap config, 9 honoured, 5 not carried, 1 unknown",
        "  not carried: models.*.x (line 1, 2, 3 and 2 more): too old",
        "  unknown: odd (line 3): no such key",
    ]
    assert [note.key for note in report.lost][-1] == "odd"


def test_a_report_is_json_for_programs() -> None:
    note = Note("a", 1, Fate.TRANSLATED, "a", "b", "c")
    value = json.loads(json.dumps(Report("f", "form", (note,)).as_json()))
    assert value == {
        "source": "f",
        "form": "form",
        "notes": [
            {
                "key": "a",
                "line": 1,
                "fate": "translated",
                "pattern": "a",
                "native": "b",
                "why": "c",
            }
        ],
    }


def test_nothing_to_report_is_said_too() -> None:
    assert list(Report("f", "form", ()).lines()) == ["f: form, nothing in it"]
